//! The token of SASL/OAUTHBEARER, from a file that something else renews.
//!
//! librdkafka asks for the token, and for a new one when four fifths of its life are over. A client asks while it is polled.
//! But the first requests of a client may come before its first poll, and some clients are never polled. So every client gets
//! the token when it is made, and those that stay and are not polled get it again before their requests.
#![expect(
    unsafe_code,
    reason = "rdkafka 0.39 has no call that sets a token; the client and the texts outlive the call"
)]

use std::error::Error;
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka_sys as sys;
use serde::Deserialize;
use service::Secret;

use crate::error::error_text;

/// How long a token is used whose end is unknown, since it is no JWT. Then the file is read again.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(300);

/// The variable with the path, without `_FILE`.
const NAME: &str = "KAFKA_TOKEN";

/// The file, where the mechanism needs one.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenFile(Option<PathBuf>);

/// What librdkafka wants to know of a token.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    /// The end of its life, in seconds since 1970.
    exp: Option<u64>,
}

/// The claims in the middle part of a JWT. The brokers verify them.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl TokenFile {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// What the context of a client answers when librdkafka asks for the token.
    ///
    /// # Errors
    /// When the file can't be read, or its token has expired.
    pub(crate) fn read(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let path = self.0.as_ref().ok_or("--kafka-token-file is not given")?;
        let token = Secret::read(NAME, path).map_err(|error| error_text(&error))?;
        let claims = claims(token.expose());
        let now = since_1970(SystemTime::now());
        let end = claims.exp.map_or(now + UNKNOWN_LIFETIME, Duration::from_secs);
        if end <= now {
            let since = (now - end).as_secs();
            return Err(format!("the token in {} ({NAME}_FILE) expired {since} s ago", path.display()).into());
        }
        Ok(OAuthToken {
            token: token.expose().to_owned(),
            principal_name: claims.sub,
            lifetime_ms: i64::try_from(end.as_millis())?,
        })
    }

    /// Gives the client the token. Does nothing for other mechanisms.
    ///
    /// # Errors
    /// As [`TokenFile::read`], or librdkafka rejects the token's form.
    pub(crate) fn give<C: ClientContext>(&self, client: &Client<C>) -> Result<(), Box<dyn Error>> {
        if self.0.is_none() {
            return Ok(());
        }
        let OAuthToken { token, principal_name, lifetime_ms } = self.read()?;
        let (token, principal) = (CString::new(token)?, CString::new(principal_name)?);
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: all outlive the call, which copies the texts, and ends the reason with a zero byte.
        let code = unsafe {
            let (buffer, len) = (reason.as_mut_ptr(), reason.len());
            let (token, principal) = (token.as_ptr(), principal.as_ptr());
            let none = std::ptr::null_mut();
            sys::rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                token,
                lifetime_ms,
                principal,
                none,
                0,
                buffer,
                len,
            )
        };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        // SAFETY: the call has ended it with a zero byte.
        let reason = unsafe { CStr::from_ptr(reason.as_ptr()) };
        Err(format!("the token in --kafka-token-file: {}", reason.to_string_lossy()).into())
    }

    /// As [`TokenFile::give`], but an error is only logged. The client may have a token that is valid, and a client that is polled
    /// asks again.
    pub(crate) fn renew<C: ClientContext>(&self, client: &Client<C>) {
        if let Err(error) = self.give(client) {
            tracing::warn!(%error, "a Kafka client has no new token");
        }
    }
}

/// The client inside of what is made with a configuration.
pub(crate) trait HasClient<C: ClientContext> {
    fn inner_client(&self) -> &Client<C>;
}

impl<C: ConsumerContext> HasClient<C> for BaseConsumer<C> {
    fn inner_client(&self) -> &Client<C> {
        self.client()
    }
}

impl<C: ProducerContext> HasClient<C> for BaseProducer<C> {
    fn inner_client(&self) -> &Client<C> {
        self.client()
    }
}

impl<C: ClientContext> HasClient<C> for AdminClient<C> {
    fn inner_client(&self) -> &Client<C> {
        self.inner()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    /// A file of this test alone, with a token.
    fn file(name: &str, token: &str) -> TokenFile {
        let path = std::env::temp_dir().join(format!("cart-token-{}-{name}", std::process::id()));
        std::fs::write(&path, format!("{token}\n")).unwrap();
        TokenFile::new(Some(path))
    }

    #[test]
    fn a_token_has_its_own_name_and_end() {
        let token = jwt(r#"{"sub":"cart-processor","exp":4102444800,"scope":"kafka"}"#);
        let read = file("jwt", &token).read().unwrap();
        assert_eq!((read.token, read.principal_name.as_str()), (token, "cart-processor"));
        assert_eq!(read.lifetime_ms, 4_102_444_800_000);
    }

    #[test]
    fn a_token_that_is_no_jwt_is_read_again_after_a_while() {
        let read = file("opaque", "0a1b2c").read().unwrap();
        let now = i64::try_from(since_1970(SystemTime::now()).as_millis()).unwrap();
        assert!((read.lifetime_ms - now - 300_000).abs() < 60_000, "{} {now}", read.lifetime_ms);
        assert_eq!(read.principal_name, "");
    }

    #[test]
    fn an_expired_or_missing_token_is_an_error_without_the_token() {
        let error = file("expired", &jwt(r#"{"exp":1000000000}"#)).read().err().unwrap().to_string();
        assert!(error.contains("(KAFKA_TOKEN_FILE) expired ") && !error.contains("e30"), "{error}");
        let missing = TokenFile::new(Some(PathBuf::from("/nowhere/token"))).read().err().unwrap().to_string();
        assert!(missing.starts_with("reading /nowhere/token (KAFKA_TOKEN_FILE) failed: No such file"), "{missing}");
    }
}
