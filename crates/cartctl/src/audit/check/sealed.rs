//! The carts that were touched since the checkpoint: their journals up to it must be what was sealed, and the model goes on there.

use std::collections::{BTreeMap, HashMap};

use cart::{CartEvent, CartId, Position};

use super::log::Log;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::digest::CartDigest;
use crate::audit::evidence::Evidence;
use crate::audit::report::{Findings, Kind};
use crate::audit::rules::Cart;

/// Compares each cart's journal with its digest, and takes the results of its commands from there.
pub(super) fn follow(
    evidence: &Evidence,
    checkpoint: &Checkpoint,
    log: &mut Log,
    models: &mut HashMap<CartId, Cart>,
    findings: &mut Findings,
) {
    let no_requests = BTreeMap::new();
    for (cart_id, rows) in &evidence.journal {
        let partition = evidence.partition(*cart_id);
        let is_sealed = |position| evidence.is_sealed(partition, position);
        let requests = evidence.requests.get(cart_id).unwrap_or(&no_requests);
        let found = CartDigest::of(rows, requests, is_sealed);
        let expected = checkpoint.carts.get(cart_id).copied();
        let events = evidence.sealed.get(cart_id);
        let events = match events {
            Some(Err(reason)) => Err(reason.as_str()),
            _ if found != expected => Err("other rows"),
            Some(Ok(events)) => Ok(events.as_slice()),
            None => Ok(&[][..]),
        };
        match events {
            Ok(events) => {
                let sealed = requests.iter().filter(|(position, _)| is_sealed(**position));
                let mut steps: BTreeMap<Position, Vec<&CartEvent>> =
                    sealed.map(|(position, _)| (*position, Vec::new())).collect();
                for event in events {
                    steps.entry(event.position).or_default().push(event);
                }
                if steps.is_empty() {
                    continue;
                }
                let (model, cart) =
                    (models.entry((*cart_id).into()).or_default(), log.carts.entry((*cart_id).into()).or_default());
                cart.partition = partition;
                for (position, events) in steps {
                    let Some(kept) = requests.get(&position) else { continue };
                    cart.requests.insert(position, kept.clone());
                    if events.is_empty() {
                        model.follow_unchanged(kept, position);
                    } else {
                        model.follow(&events.into_iter().cloned().collect::<Vec<_>>(), kept.keyed);
                    }
                }
                cart.sealed = model.sequence_number();
            }
            Err(reason) => {
                log.unknown.insert((*cart_id).into());
                let place = format!("the journal, cart {cart_id}, up to the checkpoint");
                let shown = |digest: Option<CartDigest>| digest.map(|digest| format!("{:?}", digest.newest));
                let (expected, found) = (shown(expected), shown(found).map(|found| format!("{reason}: {found}")));
                let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "no rows".to_owned());
                findings.add(Kind::SealBroken, place, Some(&text(&expected)), Some(&text(&found)));
            }
        }
    }
}
