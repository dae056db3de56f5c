//! A GET after a 200 shows that write, through any ingest.

use e2e::harness::{Installation, Service};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::api::{Api, Cart, PATIENT, PROCESSOR, item};

const CLIENTS: usize = 16;
const ROUNDS: u32 = 20;

/// Sends one command and returns its reply, with the items that the cart must have then.
async fn round(cart: &Cart, round: u32, mut items: Vec<(u128, i64)>) -> anyhow::Result<(Value, Vec<(u128, i64)>)> {
    let (kept, passing) = (1, u128::from(100 + round));
    let answer = match round % 5 {
        0 => {
            items.push((kept, 2));
            cart.add(kept, 2).await?
        }
        1 => {
            items.push((passing, 1));
            cart.add(passing, 1).await?
        }
        2 => {
            items[0].1 += i64::from(round);
            cart.adjust(kept, round.into()).await?
        }
        3 => {
            let (product, _) = items.pop().expect("added two rounds ago");
            cart.remove(product).await?
        }
        _ => {
            items.clear();
            cart.checkout().await?
        }
    };
    Ok((answer.done(), items))
}

async fn member(writes: Cart, reads: Cart) -> anyhow::Result<()> {
    let mut items = Vec::new();
    for number in 0..ROUNDS {
        let (reply, now) = round(&writes, number, items).await?;
        items = now;
        // `get` compares the ETag with the version.
        let shown = reads.get().await?;
        let at = format!("round {number}: {reply:#}\nthen {shown:#}");
        assert_eq!(reply["version"], number + 1, "{at}");
        assert_eq!(shown["version"], reply["version"], "{at}");
        assert_eq!(shown["cartId"], reply["cartId"], "{at}");
        let expected: Vec<_> = items.iter().map(|(product, quantity)| item(*product, *quantity)).collect();
        assert_eq!(shown["items"], json!(expected), "{at}");
        let pieces: i64 = items.iter().map(|(_, quantity)| quantity).sum();
        let halves = if pieces % 2 == 0 { "" } else { ".5" };
        assert_eq!(shown["total"], format!("{}{halves}", pieces * 5 / 2), "{at}");
        assert_eq!(shown["sessionId"] == reply["sessionId"], !items.is_empty(), "{at}");
    }
    Ok(())
}

pub(crate) async fn a_get_after_a_200_shows_that_write() -> anyhow::Result<()> {
    let installation = Installation::new("reads")?;
    installation.setup().await?;
    let processes = installation
        .start_all(&[PROCESSOR, (Service::Ingest, "0", &PATIENT), (Service::Ingest, "1", &PATIENT)])
        .await?;
    let apis = [Api::new(&processes[1]), Api::new(&processes[2])];
    // Half of them read through the same instance, half through the other one.
    let members = (0..CLIENTS).map(|number| {
        let cart = apis[number % 2].cart();
        let reads = cart.through(&apis[number / 2 % 2]);
        member(cart, reads)
    });
    try_join_all(members).await?;
    drop(processes);
    installation.remove().await
}
