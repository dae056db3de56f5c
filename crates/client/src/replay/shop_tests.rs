//! Compares the made-up shop with a plain model of the rules, and its shares with its settings.
#![expect(clippy::float_arithmetic, reason = "shares of counts")]

use std::collections::HashMap;

use clap::Parser;

use super::command::{Action, ActionKind, Command, Intended};
use super::shop::Shop;
use super::shop_args::ShopArgs;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    shop: ShopArgs,
}

fn shop(options: &str) -> Shop {
    let line = Line::try_parse_from(std::iter::once("shop").chain(options.split_whitespace())).expect("good options");
    Shop::new(&line.shop).expect("settings that agree")
}

/// A plain model of the rules.
fn decide(carts: &mut HashMap<String, HashMap<String, i64>>, command: &Command) -> Option<&'static str> {
    let cart = carts.entry(command.member.to_string()).or_default();
    match &command.action {
        Action::Add { product, .. } if cart.contains_key(product) => {
            return Some("item-already-in-cart");
        }
        Action::Add { quantity, .. } if *quantity < 1 => return Some("negative-quantity"),
        Action::Add { product, quantity, .. } => {
            cart.insert(product.clone(), *quantity);
        }
        Action::Adjust { product, by } => match cart.get_mut(product) {
            None => return Some("item-not-in-cart"),
            Some(quantity) if *quantity + by < 1 => return Some("negative-quantity"),
            Some(quantity) => *quantity += by,
        },
        Action::Remove { product } => {
            if cart.remove(product).is_none() {
                return Some("item-not-in-cart");
            }
        }
        Action::Checkout if cart.is_empty() => return Some("empty-cart-checkout"),
        Action::Checkout => cart.clear(),
    }
    None
}

fn share(part: usize, whole: usize) -> f64 {
    let count = |count| f64::from(u32::try_from(count).expect("a small count"));
    count(part) / count(whole)
}

#[test]
fn without_a_refused_share_nothing_is_rejected() {
    for seed in 1..=5 {
        let mut carts = HashMap::new();
        let options = format!("--seed {seed} --refused-share 0 --members 50 --products 20 --cart-lines-max 30");
        for (number, command) in shop(&options).enumerate() {
            assert_eq!(decide(&mut carts, &command), None, "seed {seed}, command {number}: {command:?}");
            assert_eq!(command.intended, Intended::Accepted);
        }
    }
}

#[test]
fn rejections_are_as_intended_and_of_every_kind() {
    let mut carts = HashMap::new();
    let mut seen: HashMap<(ActionKind, &str), usize> = HashMap::new();
    // There are few products, so that some carts have all of them.
    for command in shop("--refused-share 0.3 --members 40 --products 3 --commands 20000") {
        let refused = decide(&mut carts, &command);
        let intended = match command.intended {
            Intended::Refused(code) => Some(code),
            Intended::Accepted | Intended::Anything => None,
        };
        assert_eq!(refused, intended, "{command:?}");
        *seen.entry((command.action.kind(), refused.unwrap_or("accepted"))).or_default() += 1;
    }
    let ways = [
        (ActionKind::Add, "item-already-in-cart"),
        (ActionKind::Add, "negative-quantity"),
        (ActionKind::Adjust, "item-not-in-cart"),
        (ActionKind::Adjust, "negative-quantity"),
        (ActionKind::Remove, "item-not-in-cart"),
        (ActionKind::Checkout, "empty-cart-checkout"),
    ];
    for way in ways {
        assert!(seen.get(&way).is_some_and(|count| *count > 50), "{way:?} in {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_commands() {
    let commands = |options| shop(options).collect::<Vec<_>>();
    let once = commands("--seed 7");
    assert_eq!(once, commands("--seed 7"));
    assert_ne!(once, commands("--seed 8"));
    assert_eq!(once.len(), 10_000);
}

#[test]
fn shares_are_near_their_settings() {
    let options = "--commands 40000 --members 200 --hot-carts 4 --hot-share 0.4 --refused-share 0.1 --products 1000";
    let commands: Vec<Command> = shop(options).collect();
    let of = |wanted: &dyn Fn(&Command) -> bool| share(commands.iter().filter(|c| wanted(c)).count(), commands.len());
    let near = |share: f64, setting: f64| (share - setting).abs() < 0.01;
    let hot = of(&|c| ["m0", "m1", "m2", "m3"].contains(&&*c.member));
    let one_hot = of(&|c| &*c.member == "m2");
    let refused = of(&|c| matches!(c.intended, Intended::Refused(_)));
    assert!(near(hot, 0.4), "{hot}");
    assert!(near(one_hot, 0.1), "{one_hot}");
    assert!(near(refused, 0.1), "{refused}");

    // For an empty cart any draw becomes an add, so the shares are only near the mix.
    let accepted: Vec<_> = commands.iter().filter(|c| c.intended == Intended::Accepted).collect();
    for (kind, setting) in ActionKind::ALL.into_iter().zip([0.78, 0.07, 0.03, 0.12]) {
        let share = share(accepted.iter().filter(|c| c.action.kind() == kind).count(), accepted.len());
        assert!((share - setting).abs() < 0.05, "{kind:?}: {share}");
    }
}

#[test]
fn skew_favours_the_first_products() {
    let most = |options: &str| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for command in shop(options) {
            if let Action::Add { product, .. } = command.action {
                *counts.entry(product).or_default() += 1;
            }
        }
        let total = counts.values().sum();
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(product, count)| (product, share(count, total)))
    };
    let (product, skewed) = most("--product-skew 1.2").expect("adds");
    let (_, even) = most("--product-skew 0").expect("adds");
    assert_eq!(product, "p0");
    assert!(skewed > 0.08 && even < 0.01, "{skewed} against {even}");
}

#[test]
fn times_fill_the_days_in_order() {
    let commands: Vec<Command> = shop("--start 2026-02-01 --days 2 --commands 4").collect();
    let times: Vec<String> = commands.iter().map(|c| c.at.to_rfc3339()).collect();
    let expected = [
        "2026-02-01T00:00:00+00:00",
        "2026-02-01T12:00:00+00:00",
        "2026-02-02T00:00:00+00:00",
        "2026-02-02T12:00:00+00:00",
    ];
    assert_eq!(times, expected);
}

#[test]
fn memory_is_bounded_by_members() {
    let mut shop = shop("--members 10 --products 50 --cart-lines-max 5 --commands 5000 --mix add=1");
    assert_eq!(shop.by_ref().count(), 5_000);
    assert!(shop.lines_held() <= 10 * 5, "{}", shop.lines_held());
}

#[test]
fn rejects_contradicting_settings() {
    let bad = [
        "--members 0",
        "--vendors 0",
        "--hot-share 1.5",
        "--refused-share -1",
        "--hot-carts 1000",
        "--product-skew -1",
    ];
    for options in bad {
        let words = options.replace(' ', "=");
        let line = Line::try_parse_from(["shop", &words]).expect("each is a number");
        assert!(Shop::new(&line.shop).is_err(), "{options}");
    }
}
