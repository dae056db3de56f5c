//! Access control lists: giving and taking away what a user may do. librdkafka can, its Rust wrapper (0.39) does not show it, so
//! this module calls the C functions.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no CreateAcls; every pointer below is checked and freed here")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka_sys as sys;
use sys::{
    rd_kafka_AclOperation_t as COperation, rd_kafka_ResourcePatternType_t as CPattern, rd_kafka_ResourceType_t as CType,
};

use crate::{Admin, Error};

/// A broker answers when its controller has written a change down.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// From any address: where a user connects from is for the network to restrict.
const ANY_HOST: &CStr = c"*";

/// What a user may do with a resource. Kafka gives `Describe` with `Read`, `Write` and `Delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Create,
    Delete,
    Describe,
    DescribeConfigs,
    Read,
    Write,
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Topic,
    Group,
    TransactionalId,
}

/// A grant: `principal` may do `operation` with the resources of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// The user with its type, such as `User:ingest`.
    pub principal: String,
    pub resource_type: ResourceType,
    /// The resource's full name.
    pub name: String,
    /// Whether it is every resource whose name begins so.
    pub is_prefix: bool,
    pub operation: Operation,
}

impl Admin {
    /// Gives these grants. One that is there already is fine.
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse: the cluster has no authorizer, or this user may not change it.
    pub fn create_acls(&self, acls: &[Acl]) -> Result<(), Error> {
        self.change("granting", acls, Change::Create)
    }

    /// Takes these grants away. One that is not there is fine.
    ///
    /// # Errors
    /// As [`Admin::create_acls`].
    pub fn remove_acls(&self, acls: &[Acl]) -> Result<(), Error> {
        self.change("taking away", acls, Change::Remove)
    }

    fn change(&self, doing: &str, acls: &[Acl], change: Change) -> Result<(), Error> {
        let bindings = acls.iter().map(|acl| Binding::new(acl, change)).collect::<Result<Vec<_>, _>>();
        let result = bindings.and_then(|bindings| request(self.client().inner().native_ptr(), &bindings, change));
        result.map_err(|reason| Error::retry(format!("{doing} {} grants in Kafka", acls.len()), reason))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Create,
    Remove,
}

/// librdkafka's form of a grant, or of the filter that finds exactly it.
struct Binding(*mut sys::rd_kafka_AclBinding_t);

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: `new` made it and it is not null; nothing else destroys it.
        unsafe { sys::rd_kafka_AclBinding_destroy(self.0) }
    }
}

impl Binding {
    fn new(acl: &Acl, change: Change) -> Result<Self, String> {
        let text = |text: &str| CString::new(text).map_err(|_| format!("'{text}' has a zero byte"));
        let (name, principal) = (text(&acl.name)?, text(&acl.principal)?);
        let resource_type = match acl.resource_type {
            ResourceType::Topic => CType::RD_KAFKA_RESOURCE_TOPIC,
            ResourceType::Group => CType::RD_KAFKA_RESOURCE_GROUP,
            ResourceType::TransactionalId => CType::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
        };
        let pattern = match acl.is_prefix {
            true => CPattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
            false => CPattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
        };
        let operation = match acl.operation {
            Operation::Create => COperation::RD_KAFKA_ACL_OPERATION_CREATE,
            Operation::Delete => COperation::RD_KAFKA_ACL_OPERATION_DELETE,
            Operation::Describe => COperation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            Operation::DescribeConfigs => COperation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
            Operation::Read => COperation::RD_KAFKA_ACL_OPERATION_READ,
            Operation::Write => COperation::RD_KAFKA_ACL_OPERATION_WRITE,
        };
        let allow = sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
        let new = match change {
            Change::Create => sys::rd_kafka_AclBinding_new,
            Change::Remove => sys::rd_kafka_AclBindingFilter_new,
        };
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: the texts live until it returns, which copies them; the reason is written within its length.
        let binding = unsafe {
            new(
                resource_type,
                name.as_ptr(),
                pattern,
                principal.as_ptr(),
                ANY_HOST.as_ptr(),
                operation,
                allow,
                reason.as_mut_ptr(),
                reason.len(),
            )
        };
        if binding.is_null() {
            // SAFETY: librdkafka ends it with a zero byte.
            return Err(unsafe { text_of(reason.as_ptr()) });
        }
        Ok(Self(binding))
    }
}

fn request(client: *mut sys::rd_kafka_t, bindings: &[Binding], change: Change) -> Result<(), String> {
    let mut pointers: Vec<_> = bindings.iter().map(|binding| binding.0).collect();
    let timeout_ms = i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives this function, and the bindings the request, which copies them. Queue and event are made here, are
    // not null where they are used, and are destroyed once, after the last use of what they own. Texts are copied.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let send = match change {
            Change::Create => sys::rd_kafka_CreateAcls,
            Change::Remove => sys::rd_kafka_DeleteAcls,
        };
        // No options: the client's own timeouts hold, and the poll below bounds the wait.
        send(client, pointers.as_mut_ptr(), pointers.len(), ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let result =
            if event.is_null() { Err(format!("no response within {timeout_ms} ms")) } else { result_in(event, change) };
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        result
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn result_in(event: *mut sys::rd_kafka_event_t, change: Change) -> Result<(), String> {
    // SAFETY: as the caller promises; every pointer belongs to the event and is used before it is destroyed.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text_of(sys::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let errors: Vec<*const sys::rd_kafka_error_t> = match change {
            Change::Create => {
                let result = sys::rd_kafka_event_CreateAcls_result(event);
                let results = sys::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
                (0..count).map(|index| sys::rd_kafka_acl_result_error(*results.add(index))).collect()
            }
            Change::Remove => {
                let result = sys::rd_kafka_event_DeleteAcls_result(event);
                let results = sys::rd_kafka_DeleteAcls_result_responses(result, &raw mut count);
                (0..count).map(|index| sys::rd_kafka_DeleteAcls_result_response_error(*results.add(index))).collect()
            }
        };
        match errors.into_iter().find(|error| !error.is_null()) {
            Some(error) => Err(text_of(sys::rd_kafka_error_string(error))),
            None => Ok(()),
        }
    }
}

/// # Safety
/// `chars` is null or a live C string.
pub(crate) unsafe fn text_of(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::from("without a reason");
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}
