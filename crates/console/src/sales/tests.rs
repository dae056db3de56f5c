//! Sums of windows, and their bounds.

use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NOW: i64 = 1_700_000_000_000;

pub(crate) fn purchase(product: u128, vendor: u128, quantity: i64, price: &str) -> PurchasedItem {
    let id = Uuid::from_u128;
    PurchasedItem {
        event_id: id(1).into(),
        cart_id: id(2).into(),
        session_id: id(3).into(),
        vendor_id: id(vendor).into(),
        product_id: id(product).into(),
        name: format!("product {product}").try_into().unwrap(),
        price: price.parse().unwrap(),
        quantity: quantity.try_into().unwrap(),
        purchased_at: DateTime::from_timestamp_millis(NOW).unwrap(),
    }
}

#[test]
fn a_window_forgets_what_is_older() {
    let mut sales = Sales::default();
    sales.add(&purchase(1, 7, 2, "1.5"), NOW, NOW);
    sales.add(&purchase(2, 7, 1, "10"), NOW, NOW);
    let [minute, _, today] = sales.top(NOW);
    assert_eq!(minute.items[0].name.as_deref(), Some("product 1"), "by pieces");
    assert_eq!((minute.vendors[0].turnover.to_string().as_str(), minute.vendors[0].pieces), ("13", 3));
    assert_eq!(minute.vendors[0].name.as_deref(), Some("product 1"), "its best seller");
    assert_eq!(today.purchases, 2);
    let [minute, quarter, today] = sales.top(NOW + 61_000);
    assert_eq!((minute.items.len(), quarter.items.len(), today.items.len()), (0, 2, 2));
    let [_, quarter, today] = sales.top(NOW + 16 * 60_000);
    assert_eq!((quarter.items.len(), today.items.len()), (0, 2));
    let [_, _, today] = sales.top(NOW + DAY_MS);
    assert_eq!((today.items.len(), today.purchases), (0, 0));
}

#[test]
fn too_many_products_are_bounded_and_the_top_is_kept() {
    let mut sums = Sums::new(KEPT_MAX);
    for product in 0..KEPT_MAX as u128 + 10 {
        let pieces = if product % 1_000 == 0 { 50 } else { 1 };
        sums.add(Uuid::from_u128(product), &Sold { pieces, turnover: Decimal::ONE });
    }
    assert!(sums.sums.len() <= KEPT_MAX && sums.is_estimate);
    assert_eq!(sums.sums.values().filter(|sold| sold.pieces == 50).count(), 101);
    assert!(sums.top(|sold| Decimal::from(sold.pieces)).iter().all(|(_, sold)| sold.pieces == 50));
}

#[test]
fn the_steps_of_a_window_are_bounded_and_leave_nothing_behind() {
    let mut window = Window::new(QUARTER);
    let sold = Sold { pieces: 1, turnover: Decimal::ONE };
    let step = |step: usize| NOW + i64::try_from(step).unwrap() * STEP_MS;
    let ids = |number: usize| {
        let id = Uuid::from_u128(number as u128);
        (id.into(), id.into())
    };
    for number in 0..3 {
        for product in 0..3 * STEP_KEPT_MAX {
            let (product, vendor) = ids(product);
            window.add(step(number), step(number), product, vendor, &sold);
        }
    }
    let lens = window.steps.iter().flat_map(|(_, span)| [span.items.sums.len(), span.vendors.sums.len()]);
    assert!(lens.max().unwrap() <= STEP_KEPT_MAX && window.is_estimate());
    let of_steps: i64 =
        window.steps.iter().flat_map(|(_, span)| span.items.sums.values()).map(|sold| sold.pieces).sum();
    assert_eq!(window.total.items.sums.values().map(|sold| sold.pieces).sum::<i64>(), of_steps);

    // One step that is small enough, and the others expire.
    let (product, vendor) = ids(1);
    window.add(step(QUARTER + 1), step(QUARTER + 1), product, vendor, &sold);
    window.expire(step(QUARTER + 2));
    assert_eq!((window.steps.len(), window.total.items.sums.len(), window.total.vendors.sums.len()), (1, 1, 1));
    assert!(!window.is_estimate());
}

proptest! {
    /// Against a sum over all purchases of the window.
    #[test]
    fn sums_are_those_of_the_purchases_in_the_window(
        purchases in prop::collection::vec((0_i64..2_000_000, 1_u128..5, 1_i64..9), 0..60),
    ) {
        let (mut sales, end) = (Sales::default(), NOW + 2_000_000);
        let mut in_order = purchases.clone();
        in_order.sort_unstable();
        for (after, product, quantity) in &in_order {
            sales.add(&purchase(*product, 9, *quantity, "0.1"), NOW + after, NOW + after);
        }
        let first = end.div_euclid(STEP_MS) + 1 - QUARTER as i64;
        let inside = in_order.iter().filter(|(after, ..)| (NOW + after).div_euclid(STEP_MS) >= first);
        let pieces: i64 = inside.map(|(_, _, quantity)| quantity).sum();
        let [_, quarter, _] = sales.top(end);
        prop_assert_eq!(quarter.items.iter().map(|line| line.pieces).sum::<i64>(), pieces);
        prop_assert_eq!(quarter.vendors.iter().map(|line| line.pieces).sum::<i64>(), pieces);
    }
}
