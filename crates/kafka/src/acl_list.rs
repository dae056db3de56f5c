//! The ACLs that a cluster has, and what they let a user do. librdkafka can list them, its Rust wrapper (0.39) does not show it, so
//! this module calls the C functions.
//!
//! librdkafka 2.12 does not pass on the error of this answer: brokers without an authorizer, and a user who may not list ACLs
//! (`Describe` on the cluster), give an empty list.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no DescribeAcls; every pointer below is checked and freed here")]

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::ptr;

use rdkafka_sys as sys;
use sys::{
    rd_kafka_AclOperation_t as COperation, rd_kafka_AclPermissionType_t as CPermission,
    rd_kafka_ResourcePatternType_t as CPattern, rd_kafka_ResourceType_t as CType,
};

use crate::acls::{Acl, Operation, REQUEST_TIMEOUT, ResourceType, text_of};
use crate::{Admin, Error};

/// Of an ACL that is for each user, for each address, or for all names of a kind.
const ANY_USER: &str = "User:*";
const ANY_HOST: &str = "*";
const ANY_NAME: &str = "*";

/// The ACLs of a cluster.
#[derive(Debug, Clone, Default)]
pub struct AclList(Vec<Listed>);

/// An ACL as the brokers have it.
#[derive(Debug, Clone)]
struct Listed {
    principal: String,
    host: String,
    kind: Kind,
    name: String,
    is_prefix: bool,
    operation: Listable,
    /// Else it denies.
    is_allow: bool,
}

/// What an ACL is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Of(ResourceType),
    Cluster,
}

/// The operations of ACLs that decide on an [`Operation`].
#[derive(Debug, Clone, Copy)]
enum Listable {
    All,
    Alter,
    AlterConfigs,
    One(Operation),
}

impl Admin {
    /// All ACLs of the cluster. None also where the brokers have no authorizer, or this user may not list them.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn acls(&self) -> Result<AclList, Error> {
        let listed = request(self.client().inner().native_ptr());
        listed.map(AclList).map_err(|reason| Error::retry("listing the grants in Kafka", reason))
    }
}

impl AclList {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether its user may do what the grant says, by this ACL or by others that include it. One that only holds for an address
    /// counts: whether the user connects from there is not known.
    #[must_use]
    pub fn give(&self, grant: &Acl) -> bool {
        let of_user = || self.0.iter().filter(|acl| acl.principal == grant.principal || acl.principal == ANY_USER);
        of_user().any(|acl| acl.gives(grant)) && !of_user().any(|acl| acl.denies(grant))
    }

    /// The users, with their type, to whom an ACL of their own gives the operation on a resource.
    #[must_use]
    pub fn principals(&self, resource_type: ResourceType, name: &str, operation: Operation) -> BTreeSet<&str> {
        let may = |principal: &str, by: &Listed| {
            let grant = Acl {
                principal: principal.to_owned(),
                resource_type,
                name: name.to_owned(),
                is_prefix: false,
                operation,
            };
            by.gives(&grant) && self.give(&grant)
        };
        self.0.iter().filter(|acl| may(&acl.principal, acl)).map(|acl| acl.principal.as_str()).collect()
    }
}

/// The list of a cluster that was given these grants only.
impl FromIterator<Acl> for AclList {
    fn from_iter<T: IntoIterator<Item = Acl>>(acls: T) -> Self {
        let listed = |acl: Acl| Listed {
            principal: acl.principal,
            host: ANY_HOST.to_owned(),
            kind: Kind::Of(acl.resource_type),
            name: acl.name,
            is_prefix: acl.is_prefix,
            operation: Listable::One(acl.operation),
            is_allow: true,
        };
        Self(acls.into_iter().map(listed).collect())
    }
}

impl Listed {
    fn gives(&self, grant: &Acl) -> bool {
        let is_on_it = match self.kind {
            // Who may make topics in the cluster needs no grant on each.
            Kind::Cluster => (grant.resource_type, grant.operation) == (ResourceType::Topic, Operation::Create),
            Kind::Of(kind) => kind == grant.resource_type && self.has_all_names_of(grant),
        };
        self.is_allow && is_on_it && self.operation.gives(grant.operation)
    }

    fn denies(&self, grant: &Acl) -> bool {
        let has_some_names = grant.is_prefix && self.name.starts_with(&grant.name);
        !self.is_allow
            && self.host == ANY_HOST
            && self.kind == Kind::Of(grant.resource_type)
            && (has_some_names || self.has_all_names_of(grant))
            && self.operation.denies(grant.operation)
    }

    fn has_all_names_of(&self, grant: &Acl) -> bool {
        if self.is_prefix {
            return grant.name.starts_with(&self.name);
        }
        self.name == ANY_NAME || !grant.is_prefix && self.name == grant.name
    }
}

impl Listable {
    fn gives(self, operation: Operation) -> bool {
        match self {
            Self::All => true,
            Self::Alter => operation == Operation::Describe,
            Self::AlterConfigs => operation == Operation::DescribeConfigs,
            Self::One(one) => {
                let includes_describe = matches!(one, Operation::Read | Operation::Write | Operation::Delete);
                one == operation || operation == Operation::Describe && includes_describe
            }
        }
    }

    fn denies(self, operation: Operation) -> bool {
        match self {
            Self::All => true,
            Self::Alter | Self::AlterConfigs => false,
            Self::One(one) => one == operation,
        }
    }

    /// `None` of one that decides on no [`Operation`].
    fn of(operation: COperation) -> Option<Self> {
        match operation {
            COperation::RD_KAFKA_ACL_OPERATION_ALL => Some(Self::All),
            COperation::RD_KAFKA_ACL_OPERATION_ALTER => Some(Self::Alter),
            COperation::RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS => Some(Self::AlterConfigs),
            COperation::RD_KAFKA_ACL_OPERATION_READ => Some(Self::One(Operation::Read)),
            COperation::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::One(Operation::Write)),
            COperation::RD_KAFKA_ACL_OPERATION_CREATE => Some(Self::One(Operation::Create)),
            COperation::RD_KAFKA_ACL_OPERATION_DELETE => Some(Self::One(Operation::Delete)),
            COperation::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::One(Operation::Describe)),
            COperation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::One(Operation::DescribeConfigs)),
            COperation::RD_KAFKA_ACL_OPERATION_UNKNOWN
            | COperation::RD_KAFKA_ACL_OPERATION_ANY
            | COperation::RD_KAFKA_ACL_OPERATION_CLUSTER_ACTION
            | COperation::RD_KAFKA_ACL_OPERATION_IDEMPOTENT_WRITE
            | COperation::RD_KAFKA_ACL_OPERATION__CNT => None,
        }
    }
}

impl Kind {
    fn of(resource: CType) -> Option<Self> {
        match resource {
            CType::RD_KAFKA_RESOURCE_TOPIC => Some(Self::Of(ResourceType::Topic)),
            CType::RD_KAFKA_RESOURCE_GROUP => Some(Self::Of(ResourceType::Group)),
            CType::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID => Some(Self::Of(ResourceType::TransactionalId)),
            CType::RD_KAFKA_RESOURCE_BROKER => Some(Self::Cluster),
            CType::RD_KAFKA_RESOURCE_UNKNOWN | CType::RD_KAFKA_RESOURCE_ANY | CType::RD_KAFKA_RESOURCE__CNT => None,
        }
    }
}

fn request(client: *mut sys::rd_kafka_t) -> Result<Vec<Listed>, String> {
    let timeout_ms = i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let mut reason: [c_char; 512] = [0; 512];
    // SAFETY: the client outlives this function. Filter, queue and event are made here, are not null where they are used, and are
    // destroyed once, after the last use of what they own; the request copies the filter. Texts are copied.
    unsafe {
        let filter = sys::rd_kafka_AclBindingFilter_new(
            CType::RD_KAFKA_RESOURCE_ANY,
            ptr::null(),
            CPattern::RD_KAFKA_RESOURCE_PATTERN_ANY,
            ptr::null(),
            ptr::null(),
            COperation::RD_KAFKA_ACL_OPERATION_ANY,
            CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
            reason.as_mut_ptr(),
            reason.len(),
        );
        if filter.is_null() {
            return Err(text_of(reason.as_ptr()));
        }
        let queue = sys::rd_kafka_queue_new(client);
        // No options: the client's own timeouts hold, and the poll below bounds the wait.
        sys::rd_kafka_DescribeAcls(client, filter, ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let listed =
            if event.is_null() { Err(format!("no response within {timeout_ms} ms")) } else { listed_in(event) };
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AclBinding_destroy(filter);
        listed
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn listed_in(event: *mut sys::rd_kafka_event_t) -> Result<Vec<Listed>, String> {
    // SAFETY: as the caller promises; every pointer belongs to the event and is used before it is destroyed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeAcls_result(event);
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null()
        {
            return Err(text_of(sys::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let acls = sys::rd_kafka_DescribeAcls_result_acls(result, &raw mut count);
        Ok((0..count).filter_map(|index| listed(*acls.add(index))).collect())
    }
}

/// `None` of an ACL that decides on no [`Operation`].
///
/// # Safety
/// `acl` is a live binding.
unsafe fn listed(acl: *const sys::rd_kafka_AclBinding_t) -> Option<Listed> {
    // SAFETY: as the caller promises; the texts are copied.
    unsafe {
        let is_allow = match sys::rd_kafka_AclBinding_permission_type(acl) {
            CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW => true,
            CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY => false,
            CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_UNKNOWN
            | CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ANY
            | CPermission::RD_KAFKA_ACL_PERMISSION_TYPE__CNT => return None,
        };
        let pattern = sys::rd_kafka_AclBinding_resource_pattern_type(acl);
        Some(Listed {
            principal: text_of(sys::rd_kafka_AclBinding_principal(acl)),
            host: text_of(sys::rd_kafka_AclBinding_host(acl)),
            kind: Kind::of(sys::rd_kafka_AclBinding_restype(acl))?,
            name: text_of(sys::rd_kafka_AclBinding_name(acl)),
            is_prefix: pattern == CPattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
            operation: Listable::of(sys::rd_kafka_AclBinding_operation(acl))?,
            is_allow,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(principal: &str, operation: Operation, name: &str, is_prefix: bool) -> Acl {
        Acl {
            principal: principal.to_owned(),
            resource_type: ResourceType::Topic,
            name: name.to_owned(),
            is_prefix,
            operation,
        }
    }

    fn listed(principal: &str, operation: Listable, name: &str, is_prefix: bool) -> Listed {
        Listed {
            principal: principal.to_owned(),
            host: ANY_HOST.to_owned(),
            kind: Kind::Of(ResourceType::Topic),
            name: name.to_owned(),
            is_prefix,
            operation,
            is_allow: true,
        }
    }

    const READ: Listable = Listable::One(Operation::Read);

    #[test]
    fn an_acl_gives_what_it_includes() {
        let describe = grant("User:a", Operation::Describe, "shop-log", false);
        let read = grant("User:a", Operation::Read, "shop-log", false);
        for (operation, name, is_prefix, gives) in [
            (READ, "shop-log", false, [true, true]),
            (READ, "shop-", true, [true, true]),
            (READ, "*", false, [true, true]),
            (Listable::All, "", true, [true, true]),
            (Listable::Alter, "shop-log", false, [true, false]),
            (Listable::One(Operation::Write), "shop-log", false, [true, false]),
            (READ, "shop-", false, [false, false]),
            (READ, "shop-log-2", true, [false, false]),
        ] {
            let acls = AclList(vec![listed("User:a", operation, name, is_prefix)]);
            assert_eq!([acls.give(&describe), acls.give(&read)], gives, "{acls:?}");
            assert!(!acls.give(&Acl { principal: String::from("User:b"), ..read.clone() }));
            assert!(!acls.give(&Acl { resource_type: ResourceType::Group, ..read.clone() }));
        }
        let for_all = AclList(vec![listed("User:*", READ, "shop-log", false)]);
        assert!(for_all.give(&read));
        let names = grant("User:a", Operation::Read, "shop-", true);
        assert!(!for_all.give(&names), "one name of many");
        let cluster = AclList(vec![Listed {
            kind: Kind::Cluster,
            ..listed("User:a", Listable::One(Operation::Create), "kafka-cluster", false)
        }]);
        assert!(cluster.give(&grant("User:a", Operation::Create, "shop-log", false)) && !cluster.give(&read));
    }

    #[test]
    fn a_denial_outweighs_what_is_given() {
        let denial = |operation, name: &str, host: &str| {
            let given = listed("User:a", READ, "shop-", true);
            let denied = Listed { is_allow: false, host: host.to_owned(), ..listed("User:a", operation, name, false) };
            AclList(vec![given, denied])
        };
        let read = grant("User:a", Operation::Read, "shop-log", false);
        let names = grant("User:a", Operation::Read, "shop-", true);
        assert!(!denial(READ, "shop-log", ANY_HOST).give(&read) && !denial(READ, "shop-log", ANY_HOST).give(&names));
        assert!(!denial(Listable::All, "*", ANY_HOST).give(&read));
        assert!(denial(Listable::One(Operation::Write), "shop-log", ANY_HOST).give(&read));
        assert!(denial(READ, "shop-other", ANY_HOST).give(&read));
        assert!(denial(READ, "shop-log", "10.0.0.1").give(&read));
    }

    #[test]
    fn users_are_those_with_an_acl_of_their_own() {
        let write = Listable::One(Operation::Write);
        let acls = AclList(vec![
            listed("User:a", write, "shop-log", false),
            listed("User:b", READ, "shop-log", false),
            listed("User:c", Listable::All, "*", false),
            listed("User:d", write, "shop-", true),
            Listed { is_allow: false, ..listed("User:d", write, "shop-log", false) },
        ]);
        let writers = acls.principals(ResourceType::Topic, "shop-log", Operation::Write);
        assert_eq!(writers.into_iter().collect::<Vec<_>>(), ["User:a", "User:c"]);
    }
}
