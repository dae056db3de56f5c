//! The services that have a user, and how these are called.

use std::fmt;
use std::str::FromStr;

/// Who has a user of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Service {
    /// `cart-processor setup`, `ingest setup` and `projectors setup`
    Setup,
    Ingest,
    CartProcessor,
    ItemPurchasedEvents,
    PopularItems,
    VendorBilling,
    VendorBillingJdbc,
    /// `cart-console`
    Console,
    /// The verbs of `cartctl` that only read: audit, explain, log, parked (list, show, and list of rows), reconcile, rehearse, skipped, status, tail
    Audit,
    /// All of `cartctl` but `doctor` and `grants`, for pauses, skips, parked carts and rows, recovery and `uninstall`
    Operator,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Setup,
        Self::Ingest,
        Self::CartProcessor,
        Self::ItemPurchasedEvents,
        Self::PopularItems,
        Self::VendorBilling,
        Self::VendorBillingJdbc,
        Self::Console,
        Self::Audit,
        Self::Operator,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How users are called: a text with a place for the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users(String);

/// Where the service's name comes.
const PLACE: &str = "{service}";

impl Users {
    /// Each user has its service's name.
    pub const DEFAULT: &str = PLACE;

    /// The user of a service.
    #[must_use]
    pub fn of(&self, service: Service) -> String {
        self.0.replace(PLACE, &service.name())
    }
}

impl FromStr for Users {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(PLACE) && !text.contains(['"', '\'', '\\', '\n']) {
            Ok(Self(text.to_owned()))
        } else {
            Err("it must have {service} in it, and no quotes, backslashes or line breaks")
        }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
