//! Whether the roles of the services have their privileges.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::doctor::report::{Check, Server, Verdict};
use crate::doctor::users::{self, Held};
use crate::grants::{Privilege, Service, Users, generations_in_postgres, sql};

pub(super) const GRANTS: Check = Check {
    server: Server::Postgres,
    name: "postgres-grants",
    without_it: "a service whose user lacks a privilege does not start, or fails where it needs it",
    needs: "nothing: every user may ask what roles may do",
};

/// As `cartctl grants --for` calls this server.
const SERVER: &str = "postgres";

/// Asks for the roles and their privileges on the tables that are there.
pub(super) async fn look(pool: &PgPool, users: &Users) -> anyhow::Result<Verdict> {
    let roles: Vec<String> = sqlx::query_scalar("SELECT rolname::text FROM pg_roles").fetch_all(pool).await?;
    let roles: HashSet<_> = roles.into_iter().collect();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(pool).await?;
    let generations = generations_in_postgres(pool).await?;
    let owner = users.of(Service::Setup);
    let (mut held, mut is_any_known) = (Vec::new(), false);
    for service in Service::ALL {
        let user = users.of(service);
        let mut asked = Vec::new();
        for privilege in sql(service, &user, &owner, &database, &generations, false) {
            let is_held = privilege.is_held(pool).await?;
            asked.push((privilege, is_held));
        }
        is_any_known |= has_own(&asked);
        held.push(Held::of(service, judged(&asked, roles.contains(&user))));
    }
    if !is_any_known {
        return Ok(Verdict::not_set_up(
            "none of the services' users exists, or none has a privilege of its own, which is fine for development: each service may do \
             what the user of DATABASE_URL may",
        ));
    }
    Ok(users::judge(SERVER, users, &held, &[]))
}

/// A privilege, and whether its role has it; `None` where the role or the object does not exist.
type Asked = (Privilege, Option<bool>);

/// Whether the user has been given anything. PostgreSQL lets everybody connect to a database, until somebody takes that away.
fn has_own(asked: &[Asked]) -> bool {
    asked.iter().any(|(privilege, is_held)| !privilege.is_on_database() && *is_held == Some(true))
}

/// The privileges that the user should have, each with whether it has it. `is_known`: the user exists.
fn judged(asked: &[Asked], is_known: bool) -> Vec<(String, bool)> {
    let has_own = has_own(asked);
    // `migrations` names a table that is missing.
    let is_there = |(privilege, is_held): &&Asked| !(is_known && is_held.is_none() && privilege.is_on_table());
    let of = |(privilege, is_held): &Asked| {
        let is_given = has_own || !privilege.is_on_database();
        (privilege.text(), is_given && *is_held == Some(true))
    };
    asked.iter().filter(is_there).map(of).collect()
}

#[cfg(test)]
mod tests {
    use cart::Generation;

    use super::*;
    use crate::grants::TableGenerations;

    fn asked(service: Service, is_held: impl Fn(&Privilege) -> Option<bool>) -> Vec<Asked> {
        let generations = TableGenerations::only(Generation::FIRST);
        let privileges = sql(service, "a", "setup", "shop", &generations, false).into_iter();
        let of = |privilege: Privilege| {
            let is_held = is_held(&privilege);
            (privilege, is_held)
        };
        privileges.map(of).collect()
    }

    fn held(asked: &[Asked]) -> usize {
        judged(asked, true).into_iter().filter(|(_, is_held)| *is_held).count()
    }

    #[test]
    fn that_everybody_may_connect_is_no_grant_of_a_user() {
        let public = asked(Service::Console, |privilege| Some(privilege.is_on_database()));
        assert_eq!((has_own(&public), held(&public)), (false, 0));
        assert_eq!(judged(&public, true).len(), public.len(), "it is named as missing");
        let all = asked(Service::Console, |_| Some(true));
        assert_eq!((has_own(&all), held(&all)), (true, all.len()));
    }

    #[test]
    fn only_a_missing_table_is_left_to_the_check_of_the_tables() {
        let without_table = asked(Service::Console, |one| (one.object != "parked_row").then_some(true));
        assert_eq!(judged(&without_table, true).len(), without_table.len() - 1);
        assert_eq!(judged(&without_table, false).len(), without_table.len(), "the user does not exist");
        let without_owner = asked(Service::Operator, |one| one.is_on_database().then_some(true));
        let missing = judged(&without_owner, true);
        assert!(missing.contains(&(String::from(r#"membership in "setup""#), false)), "{missing:?}");
    }
}
