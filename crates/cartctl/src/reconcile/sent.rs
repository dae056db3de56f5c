//! The file of sent commands, which `replay --sent` writes. Each member's rows are in the order of sending.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::csv_file::{Error, decimal, for_each_row};
use crate::model::{Action, Model, Outcome, SentCommand};

#[derive(Debug, Deserialize)]
struct Row {
    time: DateTime<Utc>,
    member: String,
    action: String,
    product: String,
    vendor: String,
    name: String,
    price: String,
    quantity: String,
    /// Without this column every command must have been accepted, as in the files of the data set.
    outcome: Option<String>,
}

/// Applies each command of a file to a model.
///
/// # Errors
/// The file can't be read, or a row is not a command.
pub fn read(path: &Path) -> Result<Outcome, Error> {
    let mut model = Model::default();
    for_each_row(path, |line, row: Row| {
        model.send(command(line, row)?);
        Ok(())
    })?;
    Ok(model.finish())
}

fn command(line: u64, row: Row) -> Result<SentCommand, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("'{text}' is not a quantity"));
    let Row { time: at, member, action, product, vendor, name, price, quantity, outcome } = row;
    let action = match action.as_str() {
        "add" => {
            let (price, quantity) = (decimal(&price)?, number(&quantity)?);
            Action::Add { product, vendor, name, price, quantity }
        }
        "adjust" => Action::Adjust { product, by: number(&quantity)? },
        "remove" => Action::Remove { product },
        "checkout" => Action::Checkout,
        other => return Err(format!("'{other}' is not one of add, adjust, remove, checkout")),
    };
    Ok(SentCommand { line, at, member, action, outcome: outcome.unwrap_or_else(|| "accepted".to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(test: &str, text: &str) -> Result<Outcome, Error> {
        let path = std::env::temp_dir().join(format!("e2e-sent-{test}-{}.csv", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        let outcome = read(&path);
        std::fs::remove_file(path).expect("it is ours");
        outcome
    }

    #[test]
    fn reads_sent_commands_with_their_outcomes() {
        let text = "time,member,action,product,vendor,name,price,quantity,outcome,command_id\n\
                    2026-01-31T23:59:59.999Z,m1,add,P,V,\"A, B\",0.001,3,accepted,x\n\
                    2026-01-31T23:59:59.999Z,m1,add,P,V,\"A, B\",0.001,3,item-already-in-cart,x\n\
                    2026-01-31T23:59:59.999Z,m1,adjust,P,,,,-1,accepted,x\n\
                    2026-01-31T23:59:59.999Z,m1,checkout,,,,,,accepted,x\n\
                    2026-01-31T23:59:59.999Z,m1,remove,P,,,,,unanswered,\n";
        let outcome = read_text("good", text).expect("a good file");
        assert_eq!((outcome.commands, outcome.wrong, outcome.unanswered), (5, vec![], vec![6]));
        assert_eq!(outcome.totals.balance().to_string(), "0.002");
    }

    #[test]
    fn names_invalid_rows() {
        let header = "time,member,action,product,vendor,name,price,quantity,outcome,command_id\n";
        for (row, reason) in [
            ("2026-01-01T00:00:00Z,m,buy,,,,,,accepted,x\n", "line 2: 'buy' is not one of"),
            ("2026-01-01T00:00:00Z,m,adjust,P,,,,1.5,accepted,x\n", "line 2: '1.5' is not a quantity"),
            ("2026-01-01T00:00:00Z,m,add,P,V,N,1e2,1,accepted,x\n", "line 2: '1e2' is not a decimal number"),
            ("yesterday,m,checkout,,,,,,accepted,x\n", "line: 2"),
        ] {
            let error = read_text("bad", &format!("{header}{row}")).expect_err("a bad row");
            let text = format!("{:#}", anyhow::Error::from(error));
            assert!(text.contains(reason), "{text} names {reason}");
        }
    }
}
