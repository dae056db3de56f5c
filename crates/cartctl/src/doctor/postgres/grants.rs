//! Whether the roles of the services have their privileges.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::doctor::report::{Check, Server, Verdict};
use crate::doctor::users::{self, Held};
use crate::grants::{Service, Users, generations_in_postgres, sql};

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
        let is_known = roles.contains(&user);
        let mut grants = Vec::new();
        for privilege in sql(service, &user, &owner, &database, &generations) {
            // `migrations` names a table that is missing.
            match privilege.is_held(pool).await? {
                Some(is_held) => grants.push((privilege.text(), is_held)),
                None if is_known => {}
                None => grants.push((privilege.text(), false)),
            }
        }
        is_any_known |= is_known && !grants.is_empty();
        held.push(Held::of(service, grants));
    }
    if !is_any_known {
        return Ok(Verdict::not_set_up(
            "none of the services' users exists, which is fine for development: each service may do what the user of DATABASE_URL may",
        ));
    }
    Ok(users::judge(SERVER, users, &held, &[]))
}
