//! The schema registry: which changes of a schema it lets through, tried out under a subject of the doctor's own, and how the
//! installation's subjects are.

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{Aggregate, CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use kafka::{COMPATIBILITY, KafkaArgs, Recovery, Registry};

use super::report::{Check, Finding, Server, State, Verdict};

const REACHABLE: Check = check("registry-reachable", "no service starts", "to read the registry");
const SAME_ID: Check = check(
    "same-schema-same-id",
    "each start of a service makes another version of the schema, and readers fetch all of them",
    WRITE,
);
const REFUSES: Check = check(
    "incompatible-refused",
    "a release can write events that services and consumers cannot read, nor replay: their partitions stop",
    WRITE,
);
const ACCEPTS: Check =
    check("new-kinds-accepted", "a release with a new kind of command or event cannot be set up", WRITE);
const SUBJECTS: Check = check(
    "subject-compatibility",
    "another program can register a schema under this system's names that the services cannot read",
    "to read the compatibility of its subjects",
);
const SCHEMAS: Check = check(
    "schemas-registered",
    "the services register them at their start, which needs the permission to write, and fail where they are refused",
    "to read its subjects",
);

const WRITE: &str =
    "to write and delete subjects that begin with the prefix and cart_doctor, and to set their compatibility";

/// What to do where the registry lets too much or too little through.
const OTHER_REGISTRY: &str = "use a registry that knows BACKWARD_TRANSITIVE for a subject, such as Apicurio Registry 3, with which the tests run";

const NOT_SET_UP: &str = "no subject of this prefix has a schema: run the three `setup`s";

/// The topic whose subject the trials use. A constant, since registries list only so many subjects that those of killed doctors
/// might not be found.
const OWN: &str = "cart_doctor";

/// The subjects with the schemas of this program.
const OURS: [(&str, &str); 7] = [
    (CartCommand::TOPIC, CartCommand::SCHEMA),
    (CartEvent::TOPIC, CartEvent::SCHEMA),
    (CartReply::TOPIC, CartReply::SCHEMA),
    (CartParked::TOPIC, CartParked::SCHEMA),
    (Aggregate::TOPIC, Aggregate::SCHEMA),
    (PurchasedItem::TOPIC, PurchasedItem::SCHEMA),
    (ControlRecord::TOPIC, ControlRecord::SCHEMA),
];

const fn check(name: &'static str, without_it: &'static str, needs: &'static str) -> Check {
    Check { server: Server::Registry, name, without_it, needs }
}

/// All checks of this server.
pub(super) fn checks() -> impl Iterator<Item = &'static Check> {
    [&REACHABLE, &SAME_ID, &REFUSES, &ACCEPTS, &SUBJECTS, &SCHEMAS].into_iter()
}

/// Makes all of them.
pub(super) async fn check_all(args: &KafkaArgs) -> Vec<Finding> {
    let own_subject = args.prefixed(&format!("{OWN}-value"));
    let reached = async {
        let registry = Registry::new(args)?;
        registry.check().await?;
        anyhow::Ok(registry)
    };
    let registry = match reached.await {
        Ok(registry) => registry,
        Err(error) => return vec![Finding::unknown(&REACHABLE, &error)],
    };
    let found = format!("{} answers", args.schema_registry_url);
    let mut findings = vec![Finding::new(&REACHABLE, Ok(Verdict::holds(found)))];
    findings.extend(try_out_and_remove(&registry, &own_subject).await);
    findings.push(Finding::new(&SUBJECTS, subjects(args, &registry).await));
    findings.push(Finding::new(&SCHEMAS, schemas(args, &registry).await));
    findings
}

/// Makes the trials, and removes what they have made.
async fn try_out_and_remove(registry: &Registry, own_subject: &str) -> Vec<Finding> {
    let remove = async || {
        let removed = registry.remove_subject(own_subject).await;
        removed.map_err(|error| anyhow::Error::from(error).context("the doctor's subject could not be removed"))
    };
    // What a killed doctor has left. The trials would find it, so without this permission there are none.
    if let Err(error) = remove().await {
        return [&SAME_ID, &ACCEPTS, &REFUSES].map(|check| Finding::unknown(check, &error)).into();
    }
    let mut trials = try_out(registry).await;
    if let Err(error) = remove().await {
        // Without the permission to write there is nothing to remove, and each trial says so.
        if let [same, ..] = trials.as_mut_slice()
            && same.state == State::Ok
        {
            *same = Finding::unknown(&SAME_ID, &error);
        }
    }
    trials
}

/// A record with these fields.
fn schema(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "Trial", "namespace": "cart.doctor", "fields": [{fields}]}}"#)
}

const NUMBER: &str = r#"{"name": "number", "type": "int"}"#;
const KIND: &str = r#"{"name": "kind", "type": ["int"]}"#;
/// As a new kind of event is added.
const MORE_KINDS: &str = r#"{"name": "kind", "type": ["int", "string"]}"#;
/// The same name, which the newest version lacks and the first one has with another type.
const OTHER_TYPE: &str = r#"{"name": "number", "type": "string", "default": ""}"#;

async fn try_out(registry: &Registry) -> Vec<Finding> {
    let [first, more, fewer, other] = [
        schema(&format!("{NUMBER}, {KIND}")),
        schema(&format!("{NUMBER}, {MORE_KINDS}")),
        schema(MORE_KINDS),
        schema(&format!("{MORE_KINDS}, {OTHER_TYPE}")),
    ];
    let register = async |schema: &str| registry.register(OWN, schema).await;
    // Whether it is refused as incompatible.
    let is_refused = async |schema: &str| match register(schema).await {
        Ok(_) => Ok(false),
        Err(error) if error.recovery() == Recovery::Fatal => Ok(true),
        Err(error) => Err(anyhow::Error::from(error)),
    };
    let same = async {
        let ids = (register(&first).await?, register(&first).await?);
        anyhow::Ok(match ids {
            (one, two) if one == two => Verdict::holds(format!("the same schema has the id {one} each time")),
            (one, two) => Verdict::fails(format!("the same schema has the ids {one} and {two}"), OTHER_REGISTRY),
        })
    };
    let same = same.await;
    let accepts = is_refused(&more).await.map(|is_refused| match is_refused {
        false => Verdict::holds("a branch that is appended to a union is accepted"),
        true => Verdict::fails("a branch that is appended to a union is refused", OTHER_REGISTRY),
    });
    let refuses = async {
        let is_other_refused = is_refused(&other).await?;
        // Without the field: the newest version then agrees with the other type, and only the older ones do not.
        register(&fewer).await?;
        let is_older_refused = is_refused(&other).await?;
        anyhow::Ok(match (is_other_refused, is_older_refused) {
            (true, true) => {
                Verdict::holds("a schema that cannot read what an earlier version wrote is refused, for all versions")
            }
            (false, _) => {
                Verdict::fails("a schema that cannot read what the version before wrote is accepted", OTHER_REGISTRY)
            }
            (true, false) => Verdict::fails("only the newest version is compared, not all", OTHER_REGISTRY),
        })
    };
    let refuses = refuses.await;
    vec![Finding::new(&SAME_ID, same), Finding::new(&ACCEPTS, accepts), Finding::new(&REFUSES, refuses)]
}

async fn subjects(args: &KafkaArgs, registry: &Registry) -> anyhow::Result<Verdict> {
    let (mut known, mut others) = (0, Vec::new());
    for (topic, schema) in OURS {
        if registry.is_registered(topic, schema).await?.is_none() {
            continue;
        }
        known += 1;
        let found = registry.compatibility(topic).await?;
        if found.as_deref() != Some(COMPATIBILITY) {
            let subject = args.prefixed(&format!("{topic}-value"));
            others.push((subject, found.unwrap_or_else(|| String::from("not set"))));
        }
    }
    if known == 0 {
        return Ok(Verdict::not_set_up(NOT_SET_UP));
    }
    let [(first, _), ..] = others.as_slice() else {
        return Ok(Verdict::holds(format!("{known} subjects are {COMPATIBILITY}")));
    };
    let found: Vec<_> = others.iter().map(|(subject, level)| format!("{subject} is {level}")).collect();
    let url = args.schema_registry_url.trim_end_matches('/');
    Ok(Verdict::fails(
        format!("{}, not {COMPATIBILITY}", found.join(", ")),
        format!(
            "curl -X PUT {url}/config/{first} -H 'content-type: application/json' -d '{{\"compatibility\": \"{COMPATIBILITY}\"}}', \
             and so for each; `setup` does the same"
        ),
    ))
}

async fn schemas(args: &KafkaArgs, registry: &Registry) -> anyhow::Result<Verdict> {
    let (mut absent, mut older) = (Vec::new(), Vec::new());
    for (topic, schema) in OURS {
        let subject = args.prefixed(&format!("{topic}-value"));
        match registry.is_registered(topic, schema).await.with_context(|| format!("looking up {subject}"))? {
            Some(true) => {}
            Some(false) => older.push(subject),
            None => absent.push(subject),
        }
    }
    if absent.len() == OURS.len() {
        return Ok(Verdict::not_set_up(NOT_SET_UP));
    }
    let missing: Vec<_> = absent.into_iter().chain(older).collect();
    if missing.is_empty() {
        return Ok(Verdict::holds("all schemas of this program are registered"));
    }
    Ok(Verdict::limited(
        format!("this program's schema is not registered: {}", missing.join(", ")),
        "run the three `setup`s of this version",
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A registry without subjects that answers each request, by its first line, with a status and a body.
    fn serve(answer: fn(&str) -> (&'static str, &'static str)) -> std::io::Result<KafkaArgs> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/apis/ccompat/v7", listener.local_addr()?);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream?;
                let mut request = BufReader::new(&stream);
                let head = request.by_ref().lines().map_while(Result::ok);
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                let len = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                // What is left unread would break the connection before the answer is read.
                request.read_exact(&mut vec![0; len.unwrap_or_default()])?;
                let (status, body) = answer(head.first().map_or("", String::as_str));
                let len = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}")?;
            }
            std::io::Result::Ok(())
        });
        Ok(KafkaArgs::plain("", &url))
    }

    const NOT_FOUND: (&str, &str) = ("404 Not Found", "");

    #[tokio::test]
    async fn a_user_who_may_only_read_lacks_a_named_permission_and_the_reading_checks_are_made() {
        let answer = |line: &str| match line {
            line if line.contains("/schemas/types") => ("200 OK", "[]"),
            line if line.starts_with("DELETE") => ("403 Forbidden", ""),
            _ => NOT_FOUND,
        };
        let args = serve(answer).expect("a listener");
        let findings = check_all(&args).await;
        let found: Vec<_> = findings.iter().map(|finding| (finding.check, finding.state)).collect();
        let trials = [&SAME_ID, &ACCEPTS, &REFUSES].map(|check| (check.name, State::Unknown));
        let others = [&SUBJECTS, &SCHEMAS].map(|check| (check.name, State::NotSetUp));
        assert_eq!(found, [[(REACHABLE.name, State::Ok)].as_slice(), &trials, &others].concat());
        for finding in &findings[1..4] {
            let change = finding.change.as_deref().unwrap_or_default();
            assert!(change.starts_with("a permission is missing") && change.contains(WRITE), "{change}");
            assert!(finding.found.contains("403 Forbidden"), "{}", finding.found);
        }
    }

    #[tokio::test]
    async fn a_registry_that_accepts_every_schema_fails() {
        let answer = |line: &str| match line {
            line if line.contains("/versions") && line.starts_with("POST") => ("200 OK", r#"{"id": 7}"#),
            line if line.contains("/schemas/types") || line.starts_with("PUT") => ("200 OK", "[]"),
            _ => NOT_FOUND,
        };
        let args = serve(answer).expect("a listener");
        let findings = check_all(&args).await;
        let failed: Vec<_> = findings.iter().filter(|finding| finding.state == State::Failed).collect();
        let [finding] = failed[..] else { panic!("{findings:?}") };
        assert_eq!((finding.check, finding.change.as_deref()), (REFUSES.name, Some(OTHER_REGISTRY)));
        assert!(finding.found.contains("cannot read what the version before wrote is accepted"), "{}", finding.found);
    }
}
