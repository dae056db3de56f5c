//! Each kind of error of a page is reported.

use anyhow::{bail, ensure};

use super::answer::{Comparison, Run};
use super::page::{self, NotRun};

const ITEM: &str = r#"{"cartId":"7b6fc97b-9d5f","item":{"name":"red mug","quantity":2},"total":"7"}"#;

fn answered(output: &str, status: u16) -> Run {
    Run { succeeded: true, output: output.to_owned(), statuses: vec![status], errors: String::new() }
}

/// The difference between a shown answer and a command's output; empty if they are the same.
fn found(shown: &str, output: &str, status: u16) -> String {
    Comparison::default().compare(shown, &answered(output, status)).err().unwrap_or_default()
}

fn expect(cases: &[(&str, &str, u16, &str)]) -> anyhow::Result<()> {
    for (shown, output, status, expected) in cases {
        let found = found(shown, output, *status);
        let is_right = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
        ensure!(is_right, "shown {shown}, answered {output} ({status}): '{found}' instead of '{expected}'");
    }
    Ok(())
}

fn bodies() -> anyhow::Result<()> {
    expect(&[
        (ITEM, ITEM, 200, ""),
        ("", ITEM, 200, ""),
        // Wrapped, and in another order.
        ("{\"total\":\"7\",\n \"cartId\":\"7b6f...\",\n \"item\":{...}}", ITEM, 200, ""),
        (r#"{...,"item":{"quantity":2,...}}"#, ITEM, 200, ""),
        (r#"{"cartId":"...","item":{...,"quantity":2},"total":"..."}"#, ITEM, 200, ""),
        (&ITEM.replace(":2", ":3"), ITEM, 200, "body.item.quantity: the page shows the value 3, the answer has 2"),
        (&ITEM.replace("red", "blue"), ITEM, 200, "body.item.name"),
        (r#"{...,"item":{"quantity":3,...}}"#, ITEM, 200, "body.item.quantity"),
        (r#"{...,"cartId":"8b6f..."}"#, ITEM, 200, "body.cartId"),
        (r#"{...,"version":1}"#, ITEM, 200, "body.version: the page shows it, the answer lacks it"),
        (r#"{"cartId":"...","item":{...}}"#, ITEM, 200, "body.total: the answer has \"7\", the page lacks it"),
        (r#"{"cartId":"...","item":{"quantity":2},"total":"7"}"#, ITEM, 200, "body.item.name: the answer has"),
        (r#"{...,"total":7}"#, ITEM, 200, "body.total"),
        ("{...", ITEM, 200, "the page's answer is no JSON"),
        (ITEM, "ready", 200, "the answer is no JSON"),
        (ITEM, &format!("{ITEM}\n{ITEM}"), 200, "their number is 1"),
        ("[1,2]", "[1,2]", 200, ""),
        ("[1,...]", "[1,2,3]", 200, ""),
        ("[...]", "[]", 200, ""),
        ("[1,2]", "[1,2,3]", 200, "their number is 2, the answer has 3"),
        ("[1,2,...]", "[1]", 200, "their number is"),
        ("[{...}]", "[{},{}]", 200, "their number is 1"),
        ("[2,...]", "[1,2]", 200, "body[0]"),
        (r#"["a \"...\" b"]"#, r#"["a \"x\" b"]"#, 200, ""),
        (r#"["/cart/7...?after=2"]"#, r#"["/cart/7b6f?after=3"]"#, 200, "body[0]"),
        ("ready", "ready\n", 200, ""),
        ("ready", "not ready", 200, "body: the page shows the text ready"),
    ])
}

fn statuses() -> anyhow::Result<()> {
    let problem = r#"{"type":"urn:cart:problem:not-found","status":404}"#;
    let head = "HTTP/1.1 202 Accepted\r\nETag: \"1\"\r\nvary: a\r\n\r\n{\"a\":1}";
    expect(&[
        ("", ITEM, 409, "a request of the command is answered with 409"),
        (ITEM, ITEM, 409, "a request of the command is answered with 409"),
        (problem, problem, 404, ""),
        (problem, problem, 200, "the problem's status 404"),
        ("HTTP/1.1 202 Accepted\netag: \"1\"\n\n{\"a\":1}", head, 202, ""),
        ("HTTP/1.1 202 Accepted\nVary: a\n\n{...}", head, 202, ""),
        ("HTTP/1.1 200 OK\n\n{\"a\":1}", head, 202, "the status line HTTP/1.1 200 OK"),
        ("HTTP/1.1 202 Accepted\netag: \"2\"\n\n{\"a\":1}", head, 202, "'etag: \"2\"', the answer has [\"\\\"1\\\"\"]"),
        ("HTTP/1.1 202 Accepted\nlocation: /a\n\n{\"a\":1}", head, 202, "'location: /a', the answer has []"),
        ("HTTP/1.1 202 Accepted\nlocation\n\n{\"a\":1}", head, 202, "'location: ', the answer has []"),
        ("HTTP/1.1 202 Accepted\n\n{\"a\":2}", head, 202, "body.a"),
        ("HTTP/1.1 202 Accepted", head, 202, "body"),
        ("{\"a\":1}", head, 202, "prints a head, which the page does not show"),
        ("HTTP/1.1 202 Accepted\n\n{\"a\":1}", "{\"a\":1}", 202, "shows a head, which the command does not print"),
    ])?;
    let failed = Run { errors: "curl: (7)".to_owned(), ..Run::default() };
    let difference = Comparison::default().compare("", &failed).err().unwrap_or_default();
    ensure!(difference == "the command failed: curl: (7)", "{difference}");
    let earlier = Run { statuses: vec![500, 200], ..answered(ITEM, 200) };
    let difference = Comparison::default().compare(ITEM, &earlier).err().unwrap_or_default();
    ensure!(difference.contains("a request of the command is answered with 500"), "{difference}");
    Ok(())
}

/// Values that differ from run to run are accepted, and no others.
fn ids_and_times() -> anyhow::Result<()> {
    let (one, other) = ("01a22534-664c-76a5-923b-27370718e243", "01a22534-664c-76a5-923b-27370718e244");
    let by_name = "14281794-dc71-5cb3-97b4-9e8f14493951";
    let now = chrono::Utc::now().to_rfc3339();
    let text = |text: &str| format!("[\"{text}\"]");
    expect(&[
        (&text(one), &text(other), 200, ""),
        (&text(one), &text(by_name), 200, "body[0]"),
        (&text(by_name), &text(one), 200, "body[0]"),
        (&text(by_name), &text("24281794-dc71-5cb3-97b4-9e8f14493951"), 200, "body[0]"),
        (&text("2026-09-21T13:33:20Z"), &text(&now), 200, ""),
        (&text("2010-12-01T08:25:53Z"), &text("2010-12-01T08:25:53Z"), 200, ""),
        (&text("2010-12-01T08:25:53Z"), &text("2010-12-01T08:25:54Z"), 200, "body[0]"),
        (&text("soon"), &text(&now), 200, "body[0]"),
        // An id that is shown twice is one id.
        (&format!("[\"{one}\",\"{one}\"]"), &format!("[\"{other}\",\"{other}\"]"), 200, ""),
        (&format!("[\"{one}\",\"{one}\"]"), &format!("[\"{other}\",\"{one}\"]"), 200, "body[1]"),
    ])
}

fn pages() -> anyhow::Result<()> {
    let not_run = [NotRun { page: "a.md", begins: "make", reason: "it takes long" }];
    let text = "# a\n```\nmake\n```\n\n```\nA=1\ncurl a \\\n  b <<END\nc\nEND\n{\n}\ncart d\n```\ncurl f\n";
    let found: Vec<_> = page::examples("a.md", text, &not_run)?
        .into_iter()
        .map(|example| (example.place, example.command, example.answer))
        .collect();
    let expected =
        [("a.md:7", "A=1", ""), ("a.md:8", "curl a \\\n  b <<END\nc\nEND", "{\n}\n"), ("a.md:14", "cart d", "")]
            .map(|(place, command, answer)| (place.to_owned(), command.to_owned(), answer.to_owned()));
    ensure!(found == expected, "{found:?}");
    for (text, expected) in [
        ("```\nmake\n```\n", "a.md: no block has a curl command"),
        ("```\ncurl a\n```\n", "a.md: no block begins with 'make' (it takes long)"),
        ("```\nmake\n```\n- a\n  ```\n  curl b\n  ```\n", "a.md:5: a block begins with ``` at the start of a line"),
        ("```\nmake\n```\n```\ncurl a\n", "a.md:4: the block has no end"),
        ("```\nmake\ncurl a\n```\n", "a.md:1: the block has a curl command, and is not run: it takes long"),
        ("```\nmake\n```\n```\n$ curl a\n```\n", "a.md:5: the block begins with '$ curl a', which is no command"),
        ("```\nmake\n```\n```\ncurl a \\\n```\n", "a.md:5: no line follows 'curl a \\'"),
        ("```\nmake\n```\n```\ncurl a <<END\nb\n```\n", "a.md:5: no line is 'END'"),
    ] {
        let Err(error) = page::examples("a.md", text, &not_run) else { bail!("{text} is a page") };
        ensure!(format!("{error:#}").contains(expected), "{error:#}");
    }
    Ok(())
}

pub(crate) async fn errors_of_a_page_are_reported() -> anyhow::Result<()> {
    bodies()?;
    statuses()?;
    ids_and_times()?;
    pages()
}
