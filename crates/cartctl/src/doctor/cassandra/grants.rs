//! Whether the roles of the services have their permissions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use scylla::client::session::Session;
use scylla::cluster::Node;

use super::node::at;
use crate::doctor::report::{Check, Server, Verdict};
use crate::doctor::users::{self, Held};
use crate::grants::{Permission, Service, Users, cql, generations_in_cassandra};

pub(super) const GRANTS: Check = Check {
    server: Server::Cassandra,
    name: "cassandra-grants",
    without_it: "a service whose user lacks a permission does not start, or fails where it needs it",
    needs: "SELECT on system_auth.roles, system_auth.role_permissions and system_views.settings",
};

/// As `cartctl grants --for` calls this server, for this keyspace.
fn server(keyspace: &str) -> String {
    match keyspace {
        DEFAULT_KEYSPACE => String::from("cassandra"),
        keyspace => format!("cassandra --cassandra-keyspace {keyspace}"),
    }
}

/// The default of --cassandra-keyspace.
const DEFAULT_KEYSPACE: &str = "cart";

/// The one that allows everything. Cassandra has it where its settings name none.
const NO_AUTHORIZER: &str = "AllowAllAuthorizer";

/// The setting that names the authorizer. Where a setting has parts, some versions show each under a name of its own.
const AUTHORIZER: [&str; 3] = ["authorizer", "authorizer.class_name", "authorizer_class_name"];

/// Asks for the roles and their permissions on the tables that are there.
pub(super) async fn look(
    session: &Session,
    nodes: &[Arc<Node>],
    keyspace: &str,
    users: &Users,
) -> anyhow::Result<Verdict> {
    if let Some(verdict) = without_authorizer(&authorizers(session, nodes).await?) {
        return Ok(verdict);
    }
    let (roles, tables) = (Roles::read(session).await?, tables(session, keyspace).await?);
    let generations = generations_in_cassandra(session, keyspace).await?;
    // `tables` names one that is missing.
    let is_there =
        |permission: &Permission| permission.resource.split_once('.').is_none_or(|(_, table)| tables.contains(table));
    let held = Service::ALL.map(|service| {
        let permissions = cql(service, &users.of(service), keyspace, &generations, false).into_iter().filter(is_there);
        Held::of(service, permissions.map(|one| (text(&one), roles.have(&one))))
    });
    Ok(users::judge(&server(keyspace), users, &held, &[]))
}

fn text(permission: &Permission) -> String {
    format!("{} on {}", permission.permission, permission.resource)
}

/// The class of each node, by its address.
async fn authorizers(session: &Session, nodes: &[Arc<Node>]) -> anyhow::Result<Vec<(String, String)>> {
    let mut classes = Vec::new();
    for node in nodes {
        let select = at(node, "SELECT name, value FROM system_views.settings");
        let rows = session.query_unpaged(select, ()).await?.into_rows_result()?;
        let settings = rows.rows::<(String, Option<String>)>()?.collect::<Result<Vec<_>, _>>()?;
        let class = authorizer(settings).with_context(|| format!("{} has no setting authorizer", node.address))?;
        classes.push((node.address.to_string(), class));
    }
    Ok(classes)
}

/// The class that the settings of a node name; `None` if they have no such setting.
fn authorizer(settings: impl IntoIterator<Item = (String, Option<String>)>) -> Option<String> {
    let named: Vec<_> = settings.into_iter().filter(|(name, _)| AUTHORIZER.contains(&name.as_str())).collect();
    let is_known = !named.is_empty();
    let class = named.into_iter().find_map(|(_, class)| class);
    is_known.then(|| class.unwrap_or_else(|| NO_AUTHORIZER.to_owned()))
}

/// What is wrong, or not to be looked at, with the authorizers of the nodes; `None` if each restricts its clients.
fn without_authorizer(nodes: &[(String, String)]) -> Option<Verdict> {
    let open = nodes.iter().filter(|(_, class)| class.contains(NO_AUTHORIZER)).count();
    if open == 0 {
        return None;
    }
    if open == nodes.len() {
        return Some(Verdict::not_set_up(format!(
            "the nodes have {NO_AUTHORIZER}, which is fine for development: every client may do everything"
        )));
    }
    let list = nodes.iter().map(|(node, class)| format!("{class} at {node}")).collect::<Vec<_>>().join(", ");
    Some(Verdict::fails(
        format!("the authorizer is {list}: at a node with {NO_AUTHORIZER} every client may do everything"),
        "set the same authorizer in cassandra.yaml of each node, and restart those that are changed",
    ))
}

async fn tables(session: &Session, keyspace: &str) -> anyhow::Result<HashSet<String>> {
    let select = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let rows = session.query_unpaged(select, (keyspace,)).await?.into_rows_result()?;
    let tables = rows.rows::<(String,)>()?.map(|row| row.map(|(table,)| table));
    Ok(tables.collect::<Result<_, _>>()?)
}

/// The roles of a cluster.
#[derive(Debug, Default)]
struct Roles {
    superusers: HashSet<String>,
    /// The roles in which a role is.
    member_of: HashMap<String, HashSet<String>>,
    /// By role and resource, such as `data/shop/cart_journal`.
    permissions: HashMap<(String, String), HashSet<String>>,
}

impl Roles {
    async fn read(session: &Session) -> anyhow::Result<Self> {
        let mut roles = Self::default();
        let select = "SELECT role, is_superuser, member_of FROM system_auth.roles";
        let rows = session.query_unpaged(select, ()).await?.into_rows_result()?;
        for row in rows.rows::<(String, Option<bool>, Option<HashSet<String>>)>()? {
            let (role, is_superuser, member_of) = row?;
            if is_superuser == Some(true) {
                roles.superusers.insert(role.clone());
            }
            roles.member_of.insert(role, member_of.unwrap_or_default());
        }
        let select = "SELECT role, resource, permissions FROM system_auth.role_permissions";
        let rows = session.query_unpaged(select, ()).await?.into_rows_result()?;
        for row in rows.rows::<(String, String, Option<HashSet<String>>)>()? {
            let (role, resource, permissions) = row?;
            roles.permissions.insert((role, resource), permissions.unwrap_or_default());
        }
        Ok(roles)
    }

    /// Whether the role has it, by itself or by a role in which it is.
    fn have(&self, permission: &Permission) -> bool {
        let resources = including(&permission.resource);
        let (mut seen, mut next) = (HashSet::new(), vec![permission.role.as_str()]);
        while let Some(role) = next.pop() {
            if !seen.insert(role) {
                continue;
            }
            let is_given = |resource: &String| {
                let given = self.permissions.get(&(role.to_owned(), resource.clone()));
                given.is_some_and(|given| given.contains(permission.permission))
            };
            if self.superusers.contains(role) || resources.iter().any(is_given) {
                return true;
            }
            next.extend(self.member_of.get(role).into_iter().flatten().map(String::as_str));
        }
        false
    }
}

/// The resources whose permission is also one on this (such as `TABLE shop.cart_journal`), as `system_auth` calls them.
fn including(resource: &str) -> Vec<String> {
    let name = resource.rsplit(' ').next().unwrap_or_default();
    let mut names = vec![String::from("data")];
    match name.split_once('.') {
        None => names.push(format!("data/{name}")),
        Some((keyspace, table)) => {
            names.extend(["", "/*"].map(|all| format!("data/{keyspace}{all}")));
            names.push(format!("data/{keyspace}/{table}"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn roles(member_of: &[(&str, &[&str])], permissions: &[(&str, &str, &[&str])]) -> Roles {
        let given = |(role, resource, given): &(&str, &str, &[&str])| {
            (((*role).to_owned(), (*resource).to_owned()), set(given))
        };
        Roles {
            superusers: set(&["root"]),
            member_of: member_of.iter().map(|(role, of)| ((*role).to_owned(), set(of))).collect(),
            permissions: permissions.iter().map(given).collect(),
        }
    }

    fn permission(permission: &'static str, resource: &str, role: &str) -> Permission {
        Permission { permission, resource: resource.to_owned(), role: role.to_owned() }
    }

    #[test]
    fn a_node_without_the_setting_is_not_known_and_one_that_sets_nothing_allows_everything() {
        let of = |settings: &[(&str, Option<&str>)]| {
            authorizer(settings.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))))
        };
        assert_eq!(of(&[("commitlog_sync", Some("batch"))]), None);
        assert_eq!(of(&[("authorizer", None)]).as_deref(), Some(NO_AUTHORIZER));
        let in_parts = [("authorizer.parameters", None), ("authorizer.class_name", Some("CassandraAuthorizer"))];
        assert_eq!(of(&in_parts).as_deref(), Some("CassandraAuthorizer"));
    }

    #[test]
    fn nodes_of_which_only_some_restrict_their_clients_are_a_failure() {
        let verdict = |classes: &[&str]| {
            let nodes = (1..).zip(classes).map(|(number, class)| (format!("node{number}"), (*class).to_owned()));
            without_authorizer(&nodes.collect::<Vec<_>>())
        };
        assert_eq!(verdict(&["CassandraAuthorizer", "org.apache.cassandra.auth.CassandraAuthorizer"]), None);
        assert!(matches!(verdict(&[NO_AUTHORIZER, NO_AUTHORIZER]), Some(Verdict::NotSetUp { .. })));
        let Some(Verdict::Fails { found, .. }) = verdict(&["CassandraAuthorizer", NO_AUTHORIZER]) else {
            panic!("they differ")
        };
        assert!(found.contains("CassandraAuthorizer at node1, AllowAllAuthorizer at node2"), "{found}");
    }

    #[test]
    fn the_command_names_the_keyspace() {
        assert_eq!(server("cart"), "cassandra");
        assert_eq!(server("shop"), "cassandra --cassandra-keyspace shop");
    }

    #[test]
    fn a_permission_is_held_on_the_table_its_keyspace_or_all() {
        let modify = permission("MODIFY", "TABLE shop.cart_journal", "writer");
        for (resource, given, is_held) in [
            ("data/shop/cart_journal", "MODIFY", true),
            ("data/shop/*", "MODIFY", true),
            ("data/shop", "MODIFY", true),
            ("data", "MODIFY", true),
            ("data/shop/cart_journal", "SELECT", false),
            ("data/shop/cart_unchanged", "MODIFY", false),
            ("data/shop2", "MODIFY", false),
        ] {
            let roles = roles(&[], &[("writer", resource, &[given])]);
            assert_eq!(roles.have(&modify), is_held, "{given} on {resource}");
        }
        let on_table = roles(&[], &[("reader", "data/shop/cart_journal", &["SELECT"])]);
        assert!(!on_table.have(&permission("SELECT", "KEYSPACE shop", "reader")));
        let on_keyspace = roles(&[], &[("reader", "data/shop", &["SELECT", "MODIFY"])]);
        assert!(on_keyspace.have(&permission("SELECT", "KEYSPACE shop", "reader")));
    }

    #[test]
    fn a_role_has_what_the_roles_have_in_which_it_is() {
        let select = |role: &str| permission("SELECT", "KEYSPACE shop", role);
        let given: &[(&str, &str, &[&str])] = &[("readers", "data/shop", &["SELECT"])];
        let roles = roles(&[("a", &["b"]), ("b", &["readers", "a"]), ("c", &["root"]), ("d", &[])], given);
        let held = ["a", "b", "c", "d", "root", "unknown"].map(|role| roles.have(&select(role)));
        assert_eq!(held, [true, true, true, false, true, false]);
    }
}
