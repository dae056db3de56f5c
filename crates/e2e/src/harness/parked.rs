//! What `cartctl` says of parked carts and rows, and lets be tried again.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use uuid::Uuid;

use super::installation::Installation;
use super::wait_until;

/// Bytes of a schema that the registry does not have. A journal row of them cannot be decoded.
pub const UNKNOWN_SCHEMA: [u8; 8] = [0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3];

/// The longest time of one `cartctl parked`.
const DEADLINE: Duration = Duration::from_secs(120);

impl Installation {
    /// The parked carts.
    ///
    /// # Errors
    /// `cartctl` fails.
    pub async fn parked(&self) -> anyhow::Result<Vec<Value>> {
        let listed = self.cartctl(&["parked", "--json"], &[], DEADLINE).await?.with(0, "")?.output;
        let start = listed.find('[').with_context(|| listed.clone())?;
        Ok(serde_json::from_str(&listed[start..])?)
    }

    /// Waits until a cart is parked: not only set aside, to be tried again soon.
    ///
    /// # Errors
    /// `cartctl` fails, or `deadline` has passed.
    pub async fn becomes_parked(&self, cart: Uuid, deadline: Duration) -> anyhow::Result<()> {
        wait_until("the cart to be parked", deadline, async || {
            let parked = self.parked().await.map_err(|error| format!("{error:#}"))?;
            let is = |one: &Value| one["cartId"] == cart.to_string() && one["state"] == "parked";
            if parked.iter().any(is) { Ok(()) } else { Err(format!("{parked:?}")) }
        })
        .await
    }

    /// Lets a parked cart be tried again, and waits until it is live.
    ///
    /// # Errors
    /// `cartctl` fails, or the cart stays parked.
    pub async fn retry_parked(&self, cart: Uuid) -> anyhow::Result<()> {
        let cart = cart.to_string();
        let retry = ["parked", "retry", &cart, "--wait-s", "60"];
        self.cartctl(&retry, &[], DEADLINE).await?.with(0, "1 live, 0 still parked").map(drop)
    }

    /// The parked rows of the read tables.
    ///
    /// # Errors
    /// `cartctl` fails.
    pub async fn parked_rows(&self) -> anyhow::Result<Vec<Value>> {
        let listed = self.cartctl(&["parked", "rows", "--json"], &[], DEADLINE).await?.with(0, "")?.output;
        let start = listed.find('[').with_context(|| listed.clone())?;
        Ok(serde_json::from_str(&listed[start..])?)
    }

    /// Waits until this projector has so many parked rows.
    ///
    /// # Errors
    /// `cartctl` fails, or `deadline` has passed.
    pub async fn rows_become_parked(&self, projector: &str, count: usize, deadline: Duration) -> anyhow::Result<()> {
        wait_until(&format!("{count} parked rows of {projector}"), deadline, async || {
            let parked = self.parked_rows().await.map_err(|error| format!("{error:#}"))?;
            let of_it = parked.iter().filter(|one| one["projector"] == projector).count();
            if of_it == count { Ok(()) } else { Err(format!("{parked:?}")) }
        })
        .await
    }

    /// Lets all parked rows be tried again, and waits until so many are live.
    ///
    /// # Errors
    /// `cartctl` fails, or a row stays parked.
    pub async fn retry_parked_rows(&self, count: usize) -> anyhow::Result<()> {
        let retry = ["parked", "rows", "retry", "--all", "--wait-s", "60"];
        let live = format!("{count} live, 0 still parked");
        self.cartctl(&retry, &[], DEADLINE).await?.with(0, &live).map(drop)
    }
}
