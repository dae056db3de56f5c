//! What a file imports, defines and mentions.

use std::collections::BTreeSet;

use anyhow::anyhow;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The names of its `mod name;`.
    pub(super) children: Vec<String>,
    pub(super) imports: Vec<Import>,
    /// The names of its items.
    pub(super) defined: BTreeSet<String>,
    /// The identifiers outside of `use`.
    pub(super) mentioned: BTreeSet<String>,
}

/// A path of a `use`, or in the code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// The last segment is `*` for a glob.
    pub(super) path: Vec<String>,
    /// The name that it has in the file, if it is of a `use`.
    pub(super) name: Option<String>,
    pub(super) is_public: bool,
    /// In how many inline modules it is.
    pub(super) depth: usize,
}

const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "const", "static", "type", "union"];

impl Source {
    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut source = Self::default();
        source.walk(text.parse().map_err(|error| anyhow!("{error}"))?, 0);
        Ok(source)
    }

    fn walk(&mut self, stream: TokenStream, depth: usize) {
        let tokens: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at = match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => self.attribute(&tokens, at, depth),
                TokenTree::Ident(ident) => self.identifier(&tokens, at, &ident.to_string(), depth),
                TokenTree::Group(group) => {
                    self.walk(group.stream(), depth);
                    at + 1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at + 1,
            };
        }
    }

    /// Returns the place behind the attribute, or behind the item if that is for tests.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize, depth: usize) -> usize {
        let at = at + 1 + usize::from(is_punct(tokens.get(at + 1), '!'));
        let Some(TokenTree::Group(group)) = tokens.get(at) else { return at };
        if is_for_tests(group.stream()) {
            return end_of_item(tokens, at + 1);
        }
        self.walk(group.stream(), depth);
        at + 1
    }

    fn identifier(&mut self, tokens: &[TokenTree], at: usize, name: &str, depth: usize) -> usize {
        let next = tokens.get(at + 1);
        match name {
            // The path in `pub(in path)` is no import.
            "pub" if is_group(next, Delimiter::Parenthesis) => return at + 2,
            // `use<'a>` is a bound of a type.
            "use" if !is_punct(next, '<') => {
                let is_semicolon = |token: &TokenTree| is_punct(Some(token), ';');
                let len = tokens[at..].iter().position(is_semicolon).unwrap_or(tokens.len() - at);
                let is_public = is_public(&tokens[..at]);
                self.tree(&tokens[at + 1..at + len], &[], is_public, depth);
                return at + len;
            }
            "mod" => {
                if let (Some(TokenTree::Ident(module)), Some(behind)) = (next, tokens.get(at + 2)) {
                    if let TokenTree::Group(group) = behind {
                        self.walk(group.stream(), depth + 1);
                    } else if depth == 0 {
                        self.children.push(module.to_string());
                    }
                    return at + 3;
                }
            }
            "macro_rules" => {
                self.defined.extend(tokens.get(at + 2).map(ToString::to_string));
                return at + 3;
            }
            item if ITEMS.contains(&item) => {
                if let Some(TokenTree::Ident(defined)) = next
                    && !ITEMS.contains(&defined.to_string().as_str())
                {
                    self.defined.insert(defined.to_string());
                    return at + 2;
                }
            }
            _ => {}
        }
        let is_field = is_punct(before(tokens, at, 1), '.') && !is_punct(before(tokens, at, 2), '.');
        if is_field {
            return at + 1;
        }
        self.mentioned.insert(name.to_owned());
        let mut path = vec![name.to_owned()];
        let mut end = at + 1;
        while let (true, true, Some(TokenTree::Ident(segment))) =
            (is_punct(tokens.get(end), ':'), is_punct(tokens.get(end + 1), ':'), tokens.get(end + 2))
        {
            path.push(segment.to_string());
            end += 3;
        }
        // Behind `::` it is the rest of another path.
        if path.len() > 1 && !is_punct(before(tokens, at, 1), ':') {
            self.imports.push(Import { path, name: None, is_public: false, depth });
        }
        end
    }

    /// Reads what follows `use`, or is between braces in it.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String], is_public: bool, depth: usize) {
        for branch in tokens.split(|token| is_punct(Some(token), ',')) {
            // `::name` is of another crate.
            if is_punct(branch.first(), ':') {
                continue;
            }
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut is_leaf = !branch.is_empty();
            for (at, token) in branch.iter().enumerate() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => name = branch.get(at + 1).map(ToString::to_string),
                    TokenTree::Ident(_) if name.is_some() => {}
                    TokenTree::Ident(ident) => path.push(ident.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".to_owned()),
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    TokenTree::Group(group) => {
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        self.tree(&inner, &path, is_public, depth);
                        is_leaf = false;
                    }
                }
            }
            if is_leaf {
                // `{self}` names the module.
                path.pop_if(|last| *last == "self" && !prefix.is_empty());
                let name = name.or_else(|| path.last().cloned());
                self.imports.push(Import { path, name, is_public, depth });
            }
        }
    }
}

fn before(tokens: &[TokenTree], at: usize, by: usize) -> Option<&TokenTree> {
    at.checked_sub(by).and_then(|at| tokens.get(at))
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

/// Whether the tokens before an item end with `pub`, or `pub(…)`.
fn is_public(before: &[TokenTree]) -> bool {
    let is_pub = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Ident(ident)) if ident == "pub");
    match before {
        [.., first, last] if is_group(Some(last), Delimiter::Parenthesis) => is_pub(Some(first)),
        _ => is_pub(before.last()),
    }
}

/// Whether an attribute is `cfg(test)` or `cfg(all(test, …))`.
fn is_for_tests(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The place behind an item, a field or a statement that begins here.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    let mut is_use = false;
    let mut is_item = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Ident(ident) => {
                let ident = ident.to_string();
                is_use |= ident == "use" && !is_item;
                is_item |=
                    ITEMS.contains(&ident.as_str()) || ["use", "mod", "impl", "macro_rules"].contains(&ident.as_str());
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => break,
            TokenTree::Punct(punct) if punct.as_char() == ',' && !is_item => break,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => break,
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    at
}
