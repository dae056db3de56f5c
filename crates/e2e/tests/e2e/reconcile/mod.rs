//! Tests of `cartctl reconcile` against real servers: the end state of a small pipeline is made by hand, first correct, then
//! with one defect after the other.

pub(crate) mod end_state;

use cart::contract::{READ_MODELS, ReadModel, ReadTable, Store};
use cartctl::reconcile::{Args, Error, Lag, NotAtRest, Report, Verdict, run};
use e2e::harness::Installation;
use end_state::{EndState, Sale};

/// The commands of a member who buys twice a day, once with a new product name, at prices with one more decimal place than
/// cents.
const SALES: [Sale; 3] = [
    Sale { member: "m1", vendor: "V1", product: "P1", name: "ONE", price: "0.001", quantity: 4 },
    Sale { member: "m1", vendor: "V2", product: "P2", name: "TWO", price: "12.5", quantity: 2 },
    Sale { member: "m2", vendor: "V1", product: "P1", name: "ONE, NEW", price: "0.001", quantity: 1 },
];
const LATE_SALE: Sale = Sale { member: "m3", vendor: "V1", product: "P3", name: "THREE", price: "100", quantity: 1 };

const COMMANDS: &str = "time,member,action,product,vendor,name,price,quantity,outcome,command_id\n\
    2026-01-31T10:00:00Z,m1,add,P1,V1,ONE,0.001,3,accepted,a\n\
    2026-01-31T10:00:01Z,m1,add,P2,V2,TWO,12.5,2,accepted,b\n\
    2026-01-31T10:00:02Z,m2,add,P1,V1,\"ONE, NEW\",0.001,1,accepted,c\n\
    2026-01-31T10:00:03Z,m1,adjust,P1,,,,1,accepted,d\n\
    2026-01-31T10:00:03Z,m1,add,P1,V1,ONE,0.001,1,item-already-in-cart,e\n\
    2026-01-31T10:00:04Z,m1,checkout,,,,,,accepted,f\n\
    2026-01-31T10:00:05Z,m2,checkout,,,,,,accepted,g\n";
const LATE_COMMANDS: &str = "2026-01-31T10:00:06Z,m3,add,P3,V1,THREE,100,1,accepted,h\n\
    2026-01-31T10:00:07Z,m3,checkout,,,,,,accepted,i\n";

const MONTHS: &str = "vendor,year,month,balance\nV1,2026,1,0.005\nV2,2026,1,25.0\n";
const DAYS: &str = "vendor,product,year,month,day,quantity,names\n\
    V1,P1,2026,1,31,5,\"ONE|ONE, NEW\"\nV2,P2,2026,1,31,2,TWO\n";
const TOTALS: &str = "what,value\nevent:ItemPurchased,3\ntotal:balance,25.005\ntotal:quantity,7\n";

/// Runs the check with the current file of sent commands.
async fn check(state: &EndState) -> Result<Report, Error> {
    let args = Args { sent: Some(state.file("sent.csv")), ..state.args() };
    run(&args).await
}

async fn texts(state: &EndState) -> anyhow::Result<Vec<String>> {
    let report = check(state).await?;
    let texts: Vec<_> = report.differences.iter().map(ToString::to_string).collect();
    assert_eq!(report.exit_code(), u8::from(!texts.is_empty()), "{texts:?}");
    Ok(texts)
}

/// Asserts that each of `expected` is part of a difference, and that there are no others.
async fn assert_differences(state: &EndState, expected: &[&str]) -> anyhow::Result<()> {
    let texts = texts(state).await?;
    let is_told = |part: &str| texts.iter().any(|text| text.contains(part));
    assert!(expected.iter().all(|part| is_told(part)), "expected {expected:#?}\nfound {texts:#?}");
    assert_eq!(texts.len(), expected.len(), "expected {expected:#?}\nfound {texts:#?}");
    Ok(())
}

pub(crate) async fn each_defect_is_reported() -> anyhow::Result<()> {
    let state = EndState::make(Installation::new("reconcile")?).await?;
    state.write_file("sent.csv", COMMANDS)?;
    state.publish(&SALES)?;
    state.write_tables().await?;
    state.commit_groups()?;
    state.commit_projection().await?;

    assert_differences(&state, &[]).await?;
    expected_files(&state).await?;
    each_table_is_compared(&state).await?;
    transactions(&state).await?;
    late_purchase(&state).await?;
    exit_codes(&state).await?;
    state.remove().await
}

async fn expected_files(state: &EndState) -> anyhow::Result<()> {
    for (kind, text) in [("balance_by_vendor_month", MONTHS), ("item_quantity_by_vendor_day", DAYS), ("totals", TOTALS)]
    {
        state.write_file(&format!("expected.{kind}.csv"), text)?;
    }
    let expected = Some(state.folder().clone());
    let sent = Some(state.file("sent.csv"));
    for args in [
        Args { expected: expected.clone(), ..state.args() },
        Args { expected: expected.clone(), sent: sent.clone(), ..state.args() },
        state.args(),
    ] {
        let report = run(&args).await?;
        assert_eq!((report.verdict, report.topic.balance.as_deref()), (Verdict::Equal, Some("25.005")), "{report:#?}");
    }
    // Both sources, which contradict each other.
    state.write_file("sent.csv", &format!("{COMMANDS}{LATE_COMMANDS}"))?;
    let report = run(&Args { expected, sent, ..state.args() }).await?;
    assert_eq!(report.difference_count, 3, "{report:#?}");
    assert!(report.differences.iter().all(|difference| difference.store == "sent commands"), "{report:#?}");
    // The rules themselves.
    state.write_file("sent.csv", &COMMANDS.replace("item-already-in-cart", "cart-full"))?;
    assert_differences(state, &["line 6, member m1: outcome: expected item-already-in-cart, found cart-full"]).await?;
    state.write_file("sent.csv", COMMANDS)
}

/// Statements, each with the differences that it makes.
type Defects<'a> = Vec<(String, &'a [&'a str])>;

/// At least one row with a wrong value, one that is missing and one too many.
fn defects(table: ReadTable) -> Defects<'static> {
    let (v1, p1) = (cartctl::vendor_id("V1"), cartctl::product_id("P1"));
    let day = format!("vendorid = {v1} AND productid = {p1} AND year = 2026 AND month = 1 AND day = 31");
    let month = format!("vendorid = {v1} AND year = 2026 AND month = 1");
    match table {
        ReadTable::ItemQuantityByDay => vec![
            (
                format!("DELETE FROM item_quantity_by_day WHERE {day}"),
                &["quantity of product P1", "total quantity, as on the topic: expected 7, found 2"],
            ),
            (
                format!("UPDATE item_quantity_by_day SET quantity = 10 WHERE {day}"),
                &["expected 5, found 10", "total quantity, as on the topic: expected 7, found 12"],
            ),
            (
                format!("UPDATE item_quantity_by_day SET name = 'OTHER' WHERE {day}"),
                &["expected 'ONE' or 'ONE, NEW', found 'OTHER'"],
            ),
            (
                format!("UPDATE item_quantity_by_day SET name = null WHERE {day}"),
                &["expected 'ONE' or 'ONE, NEW', found "],
            ),
            (
                format!(
                    "INSERT INTO item_quantity_by_day (vendorid, productid, year, month, day, quantity, name) \
                     VALUES ({v1}, {p1}, 2026, 2, 1, 1, 'ONE')"
                ),
                &["2026-02-01: not expected, found 1", "total quantity, as on the topic: expected 7, found 8"],
            ),
        ],
        ReadTable::BalanceByVendor => vec![
            (
                format!("UPDATE balance_by_vendor SET balance = 0.015 WHERE {month}"),
                &["balance of vendor V1", "total balance, as on the topic: expected 25.005, found 25.015"],
            ),
            (
                format!("DELETE FROM balance_by_vendor WHERE {month}"),
                &["2026-01: expected 0.005, is missing", "total balance, as on the topic: expected 25.005, found 25"],
            ),
            (
                format!("INSERT INTO balance_by_vendor (vendorid, year, month, balance) VALUES ({p1}, 2026, 1, 0)"),
                &["2026-01: not expected, found 0"],
            ),
        ],
        ReadTable::VendorBilling => vec![
            (
                format!("UPDATE vendor_billing SET balance = balance - 0.001 WHERE vendor_id = '{v1}'"),
                &["expected 0.005, found 0.004", "expected 25.005, found 25.004"],
            ),
            (
                format!("DELETE FROM vendor_billing WHERE vendor_id = '{v1}'"),
                &["expected 0.005, is missing", "expected 25.005, found 25"],
            ),
            (
                format!("INSERT INTO vendor_billing VALUES ('{v1}', 2026, 2, 7)"),
                &["2026-02: not expected, found 7", "expected 25.005, found 32.005"],
            ),
        ],
    }
}

async fn each_table_is_compared(state: &EndState) -> anyhow::Result<()> {
    for ReadModel { store, table, .. } in READ_MODELS {
        for (defect, expected) in defects(table) {
            state.execute(store, &defect).await?;
            assert_differences(state, expected).await?;
            state.write_tables().await?;
        }
    }
    assert_differences(state, &[]).await?;

    let more = format!("INSERT INTO vendor_billing VALUES ('{}', 2027, 1, 0)", cartctl::vendor_id("V1"));
    state.execute(Store::Postgres, &more).await?;
    let report = run(&Args { sent: Some(state.file("sent.csv")), allow_more_rows: true, ..state.args() }).await?;
    assert_eq!(report.verdict, Verdict::Equal, "{report:#?}");
    state.write_tables().await
}

/// With an open transaction the pipeline is not idle; records of an aborted one do not count, and need not be consumed.
async fn transactions(state: &EndState) -> anyhow::Result<()> {
    let open = state.publish_in_open_transaction(&LATE_SALE).await?;
    let NotAtRest { last_seen, .. } = not_at_rest(state).await?;
    assert_eq!(last_seen[1].lag, Lag::AtRest, "{last_seen:?}");
    assert!(last_seen[2..].iter().all(|consumer| consumer.lag == Lag::OpenTransaction), "{last_seen:?}");
    state.abort(open).await?;
    assert_differences(state, &[]).await
}

async fn not_at_rest(state: &EndState) -> anyhow::Result<NotAtRest> {
    let args = Args { timeout_s: 0, ..state.args() };
    match run(&args).await {
        Err(Error::NotAtRest(not_at_rest)) => Ok(not_at_rest),
        other => anyhow::bail!("expected that it is not at rest, found {other:?}"),
    }
}

/// A sale that is billed but not on the topic; then on the topic but not consumed; then there twice.
async fn late_purchase(state: &EndState) -> anyhow::Result<()> {
    state.write_file("sent.csv", &format!("{COMMANDS}{LATE_COMMANDS}"))?;
    state.add_to_tables(&LATE_SALE).await?;
    let missing = [
        "item-purchased: number of purchases: expected 4, found 3",
        "item-purchased: balance of vendor V1",
        "item-purchased: quantity of product P3",
        "Cassandra balance_by_vendor: total balance, as on the topic: expected 25.005, found 125.005",
        "PostgreSQL vendor_billing: total balance, as on the topic: expected 25.005, found 125.005",
        "Cassandra item_quantity_by_day: total quantity, as on the topic: expected 7, found 8",
    ];
    assert_differences(state, &missing).await?;

    state.publish(&[LATE_SALE])?;
    let lags = |NotAtRest { last_seen, .. }: NotAtRest| -> Vec<bool> {
        last_seen.into_iter().map(|consumer| matches!(consumer.lag, Lag::Behind(1..))).collect()
    };
    assert_eq!(lags(not_at_rest(state).await?), [false, false, true, true, true]);
    state.commit_groups()?;
    assert_eq!(lags(not_at_rest(state).await?), [false, false, false, false, true]);
    state.commit_projection().await?;
    assert_differences(state, &[]).await?;

    state.publish(&[LATE_SALE])?;
    state.commit_groups()?;
    state.commit_projection().await?;
    let twice = [
        "expected each event once, found event",
        "item-purchased: number of purchases: expected 4, found 5",
        "item-purchased: balance of vendor V1",
        "item-purchased: quantity of product P3",
        "Cassandra balance_by_vendor: total balance, as on the topic: expected 225.005, found 125.005",
        "PostgreSQL vendor_billing: total balance, as on the topic: expected 225.005, found 125.005",
        "Cassandra item_quantity_by_day: total quantity, as on the topic: expected 9, found 8",
    ];
    assert_differences(state, &twice).await
}

/// The binary, as in scripts.
async fn exit_codes(state: &EndState) -> anyhow::Result<()> {
    let sent = state.file("sent.csv").display().to_string();
    let expected = state.folder().display().to_string();
    let json = state.file("result.json");
    let json_text = json.display().to_string();
    let different = ["--sent", &sent, "--differences-max", "2", "--json", &json_text];
    let (code, output) = state.reconcile(&different).await?;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("... and 5 more") && output.contains("FAILED: 7 differences."), "{output}");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    assert_eq!((&json["verdict"], &json["differenceCount"]), (&"different".into(), &7.into()), "{json}");

    // The tables are right if that sale was made twice; then a command without an answer.
    state.add_to_tables(&Sale { quantity: 2, ..LATE_SALE }).await?;
    let twice = "2026-01-31T10:00:08Z,m3,add,P3,V1,THREE,100,1,unanswered,\n";
    state.write_file("sent.csv", &format!("{COMMANDS}{LATE_COMMANDS}{twice}"))?;
    let (code, output) = state.reconcile(&["--sent", &sent]).await?;
    assert_eq!(code, Some(1), "the duplicate stays one: {output}");
    assert!(output.contains("UNKNOWN: 1 commands were not answered (lines 11 of the file)"), "{output}");

    let (code, output) =
        state.reconcile(&["--expected", &expected, "--topic-prefix", "nowhere.", "--timeout-s", "0"]).await?;
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("did not become idle within 0 s; last seen: cart-processor"), "{output}");
    let (code, output) = state.reconcile(&["--expected", "nowhere"]).await?;
    assert_eq!(code, Some(4), "{output}");
    Ok(())
}
