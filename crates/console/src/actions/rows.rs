//! Another try of a parked row of a read table, as of `cartctl parked rows retry`.

use cart::VendorId;
use cart::contract::READ_MODELS;

use super::{Actions, Failure};

impl Actions {
    pub(super) async fn retry_row(
        &self,
        group: &str,
        vendor_id: VendorId,
        row_key: &str,
        by: &str,
    ) -> Result<String, Failure> {
        let kept = READ_MODELS.into_iter().find_map(|model| Some((model, model.generation_of_group(group)?)));
        let Some((model, generation)) = kept else {
            return Err(Failure::Invalid(format!(
                "{group} keeps no read table: the panel has the group of each parked row"
            )));
        };
        let not_parked = || Failure::Refused(format!("row {row_key} of vendor {vendor_id} is not parked in {group}"));
        let parked = self.stores.parked_rows(model, generation).await?;
        let row = parked.iter().find(|row| (row.vendor_id, row.row_key.as_str()) == (vendor_id, row_key));
        let row = row.ok_or_else(not_parked)?;
        if !self.stores.request_retry(model, group, row, by).await? {
            return Err(not_parked());
        }
        // Its only lasting record: the request ends with the try.
        tracing::info!(by, group, %vendor_id, row = row_key, "an operator requests another try of a parked row at the page");
        Ok(format!("another try of row {row_key} of vendor {vendor_id} in {group} is requested"))
    }
}
