//! Rules for the image's file that building it would not show.

use anyhow::ensure;

use super::text;

/// The instructions with their names, without comments, each in one line.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines =
        lines.map(|line| line.strip_suffix('\\').map_or_else(|| format!("{line}\n"), |part| format!("{part} ")));
    let whole = lines.collect::<Vec<_>>().concat();
    let split = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (name.to_uppercase(), rest.trim().to_owned())
    };
    whole.lines().map(split).collect()
}

/// Whether an image's name says which one: by a digest, or a tag other than `latest`.
fn is_fixed(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest")
}

/// What is wrong with a Dockerfile.
fn complaints(text: &str) -> Vec<String> {
    let instructions = instructions(text);
    let (mut found, mut stages, mut user) = (Vec::new(), Vec::new(), None);
    for (name, rest) in &instructions {
        match name.as_str() {
            "FROM" => {
                let words: Vec<_> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
                let image = words.first().copied().unwrap_or_default();
                if !stages.contains(&image) && !is_fixed(image) {
                    found.push(format!("FROM {image} has neither a tag nor a digest, and is no stage"));
                }
                // FROM image AS name
                stages.extend(words.get(2));
                user = None;
            }
            "ADD" => found.push(format!("ADD {rest}: COPY neither downloads nor unpacks")),
            "RUN" if rest.contains("apt-get install") => {
                let needed = ["--no-install-recommends", "rm -rf /var/lib/apt/lists/*"];
                let missing = needed.into_iter().filter(|needed| !rest.contains(needed));
                found.extend(missing.map(|missing| format!("RUN {rest} lacks {missing}")));
            }
            "USER" => user = rest.split(':').next().and_then(|id| id.parse::<u32>().ok()),
            _ => {}
        }
    }
    if user.is_none_or(|id| id == 0) {
        found.push("the last stage's USER is no number above 0".to_owned());
    }
    found
}

pub(crate) async fn the_dockerfile_keeps_the_rules() -> anyhow::Result<()> {
    let dockerfile = text("scripts/Dockerfile")?;
    let found = complaints(&dockerfile);
    ensure!(found.is_empty(), "scripts/Dockerfile: {found:?}");
    // Each rule, broken.
    for (right, wrong) in [
        ("debian:bookworm-slim", "debian"),
        ("debian:bookworm-slim", "debian:latest"),
        ("--no-install-recommends ", ""),
        (" \\\n    && rm -rf /var/lib/apt/lists/*", ""),
        ("COPY . .", "ADD . ."),
        ("USER 65532:65532", "USER 0"),
        ("USER 65532:65532", "USER cart"),
        ("USER 65532:65532", ""),
    ] {
        let broken = dockerfile.replace(right, wrong);
        ensure!(broken != dockerfile, "scripts/Dockerfile lacks '{right}', which is to be broken");
        ensure!(!complaints(&broken).is_empty(), "'{wrong}' in place of '{right}' is accepted");
    }
    let of_a_stage = complaints(&dockerfile.replace("debian:bookworm-slim", "builder"));
    ensure!(of_a_stage.is_empty(), "a stage needs no tag: {of_a_stage:?}");
    Ok(())
}
