//! A topic's id: a later topic of the same name has another. librdkafka knows it, its Rust wrapper
//! (0.39) does not show it, so this one module calls the C functions.
#![expect(unsafe_code, reason = "rdkafka 0.39 has no DescribeTopics; every pointer below is checked and freed here")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

/// Base64 text of the topic's id, as Kafka's own tools print it; `Err` says what went wrong.
pub(crate) fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<String, String> {
    let name = CString::new(topic).map_err(|_| String::from("the topic's name has a zero byte"))?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives this function. Queue, collection and event are made here, are not null where they
    // are used, and are destroyed once, after the last use of what they own. The id's text is copied.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client.native_ptr());
        let mut names = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        // No options: the client's own socket timeouts hold, and the poll below bounds the wait.
        sys::rd_kafka_DescribeTopics(client.native_ptr(), topics, ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let id = if event.is_null() { Err(format!("no response within {timeout_ms} ms")) } else { id_in(event) };
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_queue_destroy(queue);
        id
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn id_in(event: *mut sys::rd_kafka_event_t) -> Result<String, String> {
    // SAFETY: as the caller promises; every pointer belongs to the event and is used before it is destroyed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null()
        {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != 1 {
            return Err(format!("{count} descriptions were returned for one topic"));
        }
        let error = sys::rd_kafka_TopicDescription_error(*topics);
        if !error.is_null() && sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_error_string(error)));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return Err(String::from("the broker returned no topic id"));
        }
        Ok(text(sys::rd_kafka_Uuid_base64str(id)))
    }
}

/// # Safety
/// `chars` is null or a live C string.
unsafe fn text(chars: *const std::ffi::c_char) -> String {
    if chars.is_null() {
        return String::from("without a reason");
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}
