//! Whether the users of the services have their grants in a server, and what goes wrong where one is missing.

use super::report::Verdict;
use crate::grants::{Service, Users};

/// What a service's user has of its grants in a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    service: Service,
    /// How many it has.
    count: usize,
    /// Those that it lacks, such as `Write on topic shop-cart-commands`.
    missing: Vec<String>,
}

impl Held {
    /// Of the service's grants, each with whether its user has it.
    pub(super) fn of(service: Service, grants: impl IntoIterator<Item = (String, bool)>) -> Self {
        let mut held = Self { service, count: 0, missing: Vec::new() };
        for (grant, is_held) in grants {
            if is_held {
                held.count += 1;
            } else {
                held.missing.push(grant);
            }
        }
        held
    }
}

/// A grant that no service has, and by which its user can do harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) found: String,
    pub(super) change: String,
}

/// The command that gives these services their grants in a server; without services to all. `server` is its name for `cartctl grants --for`,
/// with the option that names this installation there, if that is not the default.
pub(super) fn command(server: &str, users: &Users, services: &[Service]) -> String {
    let user = if users.to_string() == Users::DEFAULT { String::new() } else { format!(" --user '{users}'") };
    let of = services.iter().map(|service| service.name()).collect::<Vec<_>>().join(",");
    let of = if of.is_empty() { of } else { format!(" --of {of}") };
    format!("cartctl grants --for {server}{of}{user} --apply")
}

/// Judges a server that restricts its users, by those of the services that have grants there.
pub(super) fn judge(server: &str, users: &Users, services: &[Held], excess: &[Excess]) -> Verdict {
    let known = services.iter().filter(|held| held.count + held.missing.len() > 0);
    let (without, with): (Vec<&Held>, Vec<&Held>) = known.partition(|held| held.count == 0);
    let lacking: Vec<&Held> = with.iter().copied().filter(|held| !held.missing.is_empty()).collect();
    let mut found: Vec<_> = lacking.iter().map(|held| lacks(users, held)).collect();
    // Where no user has its default name, those that may write are the services' own, under other names.
    let excess: &[Excess] = if with.is_empty() { &[] } else { excess };
    let mut change = Vec::new();
    if with.is_empty() {
        found.push(format!("none of the users {} has a grant for this installation", names(users, &without)));
        change.push(format!(
            "if the users have other names, repeat with --user; if no grants were given, {}; if the services run as a superuser, give \
             each a user of its own",
            command(server, users, &[])
        ));
    } else if !without.is_empty() {
        found
            .push(format!("without any grant, which is fine for services that do not run: {}", names(users, &without)));
    }
    let is_incomplete = !lacking.is_empty() || !without.is_empty();
    if is_incomplete && !with.is_empty() {
        let services: Vec<_> = lacking.iter().chain(&without).map(|held| held.service).collect();
        change.push(command(server, users, &services));
    }
    found.extend(excess.iter().map(|excess| excess.found.clone()));
    change.extend(excess.iter().map(|excess| excess.change.clone()));
    let (found, change) = (found.join("; "), change.join("; "));
    if !lacking.is_empty() {
        return Verdict::fails(found, change);
    }
    if !found.is_empty() {
        return Verdict::limited(found, change);
    }
    let grants: usize = with.iter().map(|held| held.count).sum();
    Verdict::holds(format!("services whose users have their grants: {}; grants: {grants}", with.len()))
}

fn names(users: &Users, services: &[&Held]) -> String {
    services.iter().map(|held| users.of(held.service)).collect::<Vec<_>>().join(", ")
}

fn lacks(users: &Users, held: &Held) -> String {
    format!("{} lacks {}: {}", users.of(held.service), held.missing.join(", "), consequence(held.service))
}

/// What goes wrong where a service lacks a grant.
fn consequence(service: Service) -> &'static str {
    match service {
        Service::Setup => "a `setup` fails",
        Service::Ingest => "`ingest` does not get ready, or cannot answer the requests that need it",
        Service::CartProcessor => "`cart-processor` does not get ready, or stops, and commands wait",
        Service::ItemPurchasedEvents | Service::PopularItems | Service::VendorBilling | Service::VendorBillingJdbc => {
            "its projector does not get ready, or stops, and read tables stay behind"
        }
        Service::Console => "the live page lacks what it cannot read",
        Service::Audit => "a verb of `cartctl` that only reads fails",
        Service::Operator => "a verb of `cartctl` that changes something fails",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &str) -> Users {
        names.parse().expect("a name with a place for the service")
    }

    fn held(service: Service, count: usize, missing: &[&str]) -> Held {
        let grants = (0..count).map(|number| (format!("grant {number}"), true));
        Held::of(service, grants.chain(missing.iter().map(|grant| ((*grant).to_owned(), false))))
    }

    #[test]
    fn a_missing_grant_is_named_with_what_goes_wrong_and_the_command_that_gives_it() {
        let services = [
            held(Service::Ingest, 20, &["Write on topic shop-cart-commands"]),
            held(Service::Audit, 9, &["Read on topic shop-cart-replies", "Describe on group shop-popular-items"]),
            held(Service::CartProcessor, 12, &[]),
            held(Service::Setup, 0, &[]),
        ];
        let Verdict::Fails { found, change } = judge("kafka", &users("{service}"), &services, &[]) else {
            panic!("two users lack grants")
        };
        for words in [
            "ingest lacks Write on topic shop-cart-commands: `ingest` does not get ready",
            "audit lacks Read on topic shop-cart-replies, Describe on group shop-popular-items: ",
        ] {
            assert!(found.contains(words), "{found}");
        }
        assert!(!found.contains("cart-processor") && !found.contains("without any grant"), "{found}");
        assert_eq!(change, "cartctl grants --for kafka --of ingest,audit --apply");
        let Verdict::Fails { found, change } = judge("kafka", &users("shop-{service}"), &services, &[]) else {
            panic!("two users lack grants")
        };
        assert!(found.starts_with("shop-ingest lacks"), "{found}");
        assert_eq!(change, "cartctl grants --for kafka --of ingest,audit --user 'shop-{service}' --apply");
    }

    #[test]
    fn a_user_without_any_grant_is_a_service_that_may_not_run() {
        let services = [held(Service::Ingest, 3, &[]), held(Service::Console, 0, &["SELECT ON KEYSPACE shop"])];
        let Verdict::Limited { found, change } = judge("cassandra", &users("{service}"), &services, &[]) else {
            panic!("one user has none")
        };
        assert!(found.ends_with("services that do not run: console"), "{found}");
        assert_eq!(change, "cartctl grants --for cassandra --of console --apply");
        assert!(matches!(judge("cassandra", &users("{service}"), &services[..1], &[]), Verdict::Holds { .. }));
    }

    #[test]
    fn where_no_user_has_a_grant_they_may_be_called_otherwise() {
        let services = [held(Service::Ingest, 0, &["a grant"]), held(Service::Console, 0, &["a grant"])];
        let Verdict::Limited { found, change } = judge("postgres", &users("{service}"), &services, &[]) else {
            panic!("none has one")
        };
        assert!(found.contains("none of the users ingest, console has a grant"), "{found}");
        assert!(change.contains("--user") && change.contains("cartctl grants --for postgres --apply"), "{change}");
        let writer =
            [Excess { found: String::from("User:cart-ingest may write"), change: String::from("take it away") }];
        let with_writer = judge("postgres", &users("{service}"), &services, &writer);
        assert_eq!(with_writer, Verdict::limited(found, change), "a writer may be the service, under another name");
    }

    #[test]
    fn a_grant_too_many_is_a_warning_beside_others_a_part_of_the_failure() {
        let excess = [Excess { found: String::from("User:x may write"), change: String::from("take it away") }];
        let all = [held(Service::Ingest, 3, &[])];
        let Verdict::Limited { found, change } = judge("kafka", &users("{service}"), &all, &excess) else {
            panic!("one too many")
        };
        assert_eq!((found.as_str(), change.as_str()), ("User:x may write", "take it away"));
        let some = [held(Service::Ingest, 3, &["another"])];
        let Verdict::Fails { found, change } = judge("kafka", &users("{service}"), &some, &excess) else {
            panic!("one is missing")
        };
        assert!(
            found.ends_with("; User:x may write") && change.ends_with("--apply; take it away"),
            "{found}: {change}"
        );
    }
}
