//! Values that look real, drawn once at the start: the hot path only picks from them.

use fake::Fake;
use fake::faker::address::en::{BuildingNumber, CityName, StreetName, ZipCode};
use fake::faker::company::en::{Buzzword, CatchPhrase};
use fake::faker::lorem::en::Sentence;
use fake::faker::name::en::{FirstName, LastName};
use fake::faker::phone_number::en::PhoneNumber;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Countries by their share of a shop's customers; the currency is the country's.
const COUNTRIES: [(&str, &str); 8] = [
    ("DE", "EUR"),
    ("DE", "EUR"),
    ("FR", "EUR"),
    ("NL", "EUR"),
    ("US", "USD"),
    ("US", "USD"),
    ("GB", "GBP"),
    ("PL", "PLN"),
];

/// As many entries as a power of two, so that bits pick one.
#[derive(Debug)]
pub(super) struct Pool(Vec<Box<str>>);

impl Pool {
    fn fill(size: usize, mut draw: impl FnMut() -> String) -> Self {
        Self((0..size.next_power_of_two()).map(|_| draw().into_boxed_str()).collect())
    }

    /// The entry for the low bits of a random number.
    pub(super) fn pick(&self, random: u64) -> &str {
        &self.0[random as usize & (self.0.len() - 1)]
    }
}

#[derive(Debug)]
pub(super) struct Pools {
    pub(super) names: Pool,
    /// The part of an address before the number that makes it unique.
    pub(super) mailboxes: Pool,
    pub(super) mail_domains: Pool,
    pub(super) phones: Pool,
    pub(super) cities: Pool,
    /// JSON.
    pub(super) addresses: Pool,
    pub(super) notes: Pool,
    /// JSON: what an order holds.
    pub(super) lines: Pool,
}

impl Pools {
    pub(super) fn new(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        Self {
            names: Pool::fill(1024, || {
                let (first, last): (String, String) = (FirstName().fake_with_rng(rng), LastName().fake_with_rng(rng));
                format!("{first} {last}")
            }),
            mailboxes: Pool::fill(512, || {
                let (first, last): (String, String) = (FirstName().fake_with_rng(rng), LastName().fake_with_rng(rng));
                format!("{first}.{last}.").to_lowercase().replace(['\'', ' '], "")
            }),
            mail_domains: Pool(
                ["@example.com", "@example.org", "@example.net", "@mail.example"].map(Into::into).to_vec(),
            ),
            phones: Pool::fill(1024, || PhoneNumber().fake_with_rng(rng)),
            cities: Pool::fill(256, || CityName().fake_with_rng(rng)),
            addresses: Pool::fill(512, || address(rng)),
            notes: Pool::fill(128, || Sentence(4..9).fake_with_rng(rng)),
            lines: Pool::fill(512, || lines(rng)),
        }
    }

    /// Country and currency.
    pub(super) fn country(random: u64) -> (&'static str, &'static str) {
        COUNTRIES[random as usize % COUNTRIES.len()]
    }
}

fn address(rng: &mut StdRng) -> String {
    let street: String = StreetName().fake_with_rng(rng);
    let number: String = BuildingNumber().fake_with_rng(rng);
    let zip: String = ZipCode().fake_with_rng(rng);
    let city: String = CityName().fake_with_rng(rng);
    serde_json::json!({ "street": format!("{street} {number}"), "zip": zip, "city": city }).to_string()
}

fn lines(rng: &mut StdRng) -> String {
    let count: usize = (1..4).fake_with_rng(rng);
    let lines: Vec<_> = (0..count)
        .map(|_| {
            let (sku, quantity): (u32, u32) = ((10_000..99_999).fake_with_rng(rng), (1..5).fake_with_rng(rng));
            let title: String =
                if quantity == 1 { CatchPhrase().fake_with_rng(rng) } else { Buzzword().fake_with_rng(rng) };
            serde_json::json!({ "sku": format!("SKU-{sku}"), "title": title, "quantity": quantity })
        })
        .collect();
    serde_json::Value::from(lines).to_string()
}
