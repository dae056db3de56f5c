//! The examples of a page: commands in its fenced blocks, each with the answer below it.

use anyhow::{Context as _, bail, ensure};

const FENCE: &str = "```";

/// The first words of the commands that are run. An assignment (`NAME=...`) is one too.
const PROGRAMS: [&str; 4] = ["curl", "cart", "cartctl", "ingest"];

/// A block that is not run, by its beginning.
#[derive(Debug)]
pub(super) struct NotRun {
    pub(super) page: &'static str,
    pub(super) begins: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    /// Page and line.
    pub(super) place: String,
    pub(super) command: String,
    /// The shown answer; empty if there is none.
    pub(super) answer: String,
}

impl Example {
    fn program(&self) -> &str {
        first_word(&self.command)
    }

    /// The arguments of a command that starts an `ingest`.
    pub(super) fn ingest_args(&self) -> Option<Vec<&str>> {
        (self.program() == "ingest").then(|| self.command.split_whitespace().skip(1).collect())
    }

    /// The variable that it assigns to.
    pub(super) fn variable(&self) -> Option<&str> {
        variable(&self.command)
    }
}

fn first_word(line: &str) -> &str {
    line.split([' ', '\n']).next().unwrap_or_default()
}

fn variable(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.chars().all(|character| character.is_ascii_uppercase() || character == '_');
    is_name.then_some(name)
}

fn starts_command(line: &str) -> bool {
    PROGRAMS.contains(&first_word(line)) || variable(line).is_some()
}

/// The examples in their order.
///
/// # Errors
/// A block can't be parsed, or there are no examples.
pub(super) fn examples(page: &str, text: &str, not_run: &[NotRun]) -> anyhow::Result<Vec<Example>> {
    let mut lines = (1..).zip(text.lines());
    let mut examples = Vec::new();
    let mut passed_over = Vec::new();
    while let Some((fence, line)) = lines.next() {
        if !line.starts_with(FENCE) {
            let is_other_block = line.trim_start().starts_with(FENCE) || line.starts_with("~~~");
            ensure!(!is_other_block, "{page}:{fence}: a block begins with {FENCE} at the start of a line");
            continue;
        }
        let mut block = Vec::new();
        loop {
            let (number, line) = lines.next().with_context(|| format!("{page}:{fence}: the block has no end"))?;
            if line.starts_with(FENCE) {
                break;
            }
            block.push((number, line));
        }
        let begins =
            |one: &&NotRun| one.page == page && block.first().is_some_and(|(_, line)| line.starts_with(one.begins));
        if let Some(one) = not_run.iter().find(begins) {
            let has_curl = block.iter().any(|(_, line)| line.contains("curl "));
            ensure!(!has_curl, "{page}:{fence}: the block has a curl command, and is not run: {}", one.reason);
            passed_over.push(one.begins);
        } else {
            examples.extend(examples_of(page, &block)?);
        }
    }
    for one in not_run.iter().filter(|one| one.page == page) {
        ensure!(passed_over.contains(&one.begins), "{page}: no block begins with '{}' ({})", one.begins, one.reason);
    }
    ensure!(examples.iter().any(|one| one.command.contains("curl ")), "{page}: no block has a curl command");
    Ok(examples)
}

fn examples_of(page: &str, block: &[(usize, &str)]) -> anyhow::Result<Vec<Example>> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = block.iter().copied();
    while let Some((number, line)) = lines.next() {
        let place = format!("{page}:{number}");
        if starts_command(line) {
            let command = command(line, lines.by_ref().map(|(_, line)| line)).with_context(|| place.clone())?;
            examples.push(Example { place, command, answer: String::new() });
        } else if let Some(example) = examples.last_mut() {
            example.answer.extend([line, "\n"]);
        } else {
            bail!(
                "{place}: the block begins with '{line}', which is no command; if it is not to be run, say why in NOT_RUN"
            );
        }
    }
    Ok(examples)
}

/// The whole command: a line that ends with `\`, `|` or `&&` is continued, and `<<END` takes all lines until `END`.
fn command<'a>(first: &'a str, mut others: impl Iterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut lines = vec![first];
    let mut last = first;
    while ["\\", "|", "&&"].iter().any(|end| last.ends_with(end)) {
        last = others.next().with_context(|| format!("no line follows '{last}'"))?;
        lines.push(last);
    }
    if let Some((_, end)) = last.split_once("<<") {
        while last != end {
            last = others.next().with_context(|| format!("no line is '{end}'"))?;
            lines.push(last);
        }
    }
    Ok(lines.join("\n"))
}
