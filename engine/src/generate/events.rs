//! JSON events of a web shop.
//!
//! Some visitors are on the site at a time, and what they do interleaves. An event repeats what its visitor's session is
//! known by (device, place, experiments), as events of real trackers do; that, and nothing else, is why they compress well.

use super::shape::{Clock, Dice, RecordWriter, put, put_hex, put_hundredths, put_number, put_padded, scramble};
use super::words::{ADJECTIVES, CATEGORIES, DEVICES, NOUNS, PLACES, QUERIES, REFERRERS};

/// Visitors at one time.
const SESSIONS: u32 = 28;
/// Visitors the shop has ever had; a few of them come again and again.
const USERS: u32 = 2_000_000;
const PRODUCTS: u32 = 4_000;
/// The chance that an event is its session's last one, in percent.
const LEAVE_PERCENT: u32 = 4;

/// Writes events in the order of their time.
pub(super) struct EventWriter {
    dice: Dice,
    clock: Clock,
    sessions: Vec<Session>,
    orders: u64,
}

/// A visitor on the site.
struct Session {
    /// What comes before the event's own fields and what comes after, the same in each event of a session.
    head: Vec<u8>,
    tail: Vec<u8>,
    currency: &'static str,
    referrer: Vec<u8>,
    sequence: u32,
    /// The product in view.
    product: Product,
    cart_items: u32,
    cart_value: u64,
}

/// An article; everything about it follows from its number.
#[derive(Clone, Copy)]
struct Product {
    number: u32,
    adjective: &'static str,
    noun: &'static str,
    category: &'static str,
    price: u32,
    rating: u32,
}

impl Product {
    fn new(number: u32) -> Self {
        let traits = scramble(u64::from(number));
        let pick =
            |list: &[&'static str], shift: u32| list.get((traits >> shift & 0xffff) as usize % list.len()).copied().unwrap_or_default();
        Self {
            number,
            adjective: pick(&ADJECTIVES, 0),
            noun: pick(&NOUNS, 16),
            category: pick(&CATEGORIES, 32),
            price: 495 + (traits >> 48) as u32 % 400 * 50,
            rating: 28 + (traits >> 40) as u32 % 22,
        }
    }

    fn write_url(&self, out: &mut Vec<u8>) {
        put(out, "https://www.northwind-outdoor.example/");
        put(out, self.category);
        out.push(b'/');
        put(out, self.adjective);
        out.push(b'-');
        put(out, self.noun);
        out.push(b'-');
        put_number(out, self.number);
    }

    fn write_fields(&self, currency: &str, out: &mut Vec<u8>) {
        put(out, "\"product\":{\"id\":\"P-");
        put_padded(out, self.number.into(), 5);
        put(out, "\",\"name\":\"");
        put(out, self.adjective);
        out.push(b' ');
        put(out, self.noun);
        put(out, "\",\"category\":\"");
        put(out, self.category);
        put(out, "\",\"price\":");
        put_hundredths(out, self.price);
        put(out, ",\"currency\":\"");
        put(out, currency);
        put(out, "\",\"rating\":");
        put_number(out, self.rating / 10);
        out.push(b'.');
        put_number(out, self.rating % 10);
        out.push(b'}');
    }
}

impl Session {
    fn new(dice: &mut Dice) -> Self {
        let user = dice.skewed(USERS);
        // A user comes back with the same browser from the same place.
        let traits = scramble(u64::from(user) << 1);
        let choose = |shift: u32, count: usize| (traits >> shift & 0xffff) as usize % count;
        let [agent, kind, system, browser, screen] = DEVICES.get(choose(0, DEVICES.len())).copied().unwrap_or_default();
        let [country, city, zone, language, currency] = PLACES.get(choose(16, PLACES.len())).copied().unwrap_or_default();

        let mut head = Vec::with_capacity(96);
        put(&mut head, ",\"user_id\":\"u-");
        put_padded(&mut head, user.into(), 7);
        put(&mut head, "\",\"session_id\":\"");
        put_hex(&mut head, dice.bits(), 16);
        put(&mut head, if choose(32, 10) < 3 { "\",\"logged_in\":true" } else { "\",\"logged_in\":false" });

        let mut tail = Vec::with_capacity(512);
        for (name, value) in [
            ("},\"device\":{\"type\":\"", kind),
            ("\",\"os\":\"", system),
            ("\",\"browser\":\"", browser),
            ("\",\"screen\":\"", screen),
            ("\",\"user_agent\":\"", agent),
            ("\"},\"geo\":{\"country\":\"", country),
            ("\",\"city\":\"", city),
            ("\",\"timezone\":\"", zone),
            ("\",\"language\":\"", language),
            ("\"},\"experiments\":{\"checkout_flow\":\"", dice.pick_text(&["control", "one_page"])),
            ("\",\"search_ranking\":\"", dice.pick_text(&["control", "semantic", "popular"])),
            ("\"},\"app\":{\"release\":\"2026.", dice.pick_text(&["1.4", "1.5", "2.0"])),
        ] {
            put(&mut tail, name);
            put(&mut tail, value);
        }
        put(&mut tail, "\"}}");

        let referrer = dice.pick_text(&REFERRERS).as_bytes().to_vec();
        let product = Product::new(dice.skewed(PRODUCTS));
        Self { head, tail, currency, referrer, sequence: 0, product, cart_items: 0, cart_value: 0 }
    }

    /// Goes to another page; the one before becomes the referrer.
    fn visit(&mut self, product: Product) {
        self.referrer.clear();
        self.product.write_url(&mut self.referrer);
        self.product = product;
    }
}

impl EventWriter {
    pub(super) fn new(mut dice: Dice, clock: Clock) -> Self {
        let sessions = (0..SESSIONS).map(|_| Session::new(&mut dice)).collect();
        let orders = dice.bits() % 1_000_000;
        Self { dice, clock, sessions, orders }
    }

    /// Appends an event without line end.
    pub(super) fn write_event(&mut self, out: &mut Vec<u8>) {
        let Self { dice, clock, sessions, orders } = self;
        clock.advance(dice);
        let position = dice.below(SESSIONS) as usize;
        let Some(session) = sessions.get_mut(position) else { return };
        session.sequence += 1;

        put(out, "{\"timestamp\":\"");
        clock.write_iso(out);
        // As UUID version 7 has it: the time, then chance.
        put(out, "\",\"event_id\":\"");
        let bits = dice.bits();
        put_hex(out, clock.now_ms >> 16, 8);
        out.push(b'-');
        put_hex(out, clock.now_ms, 4);
        put(out, "-7");
        put_hex(out, bits, 3);
        put(out, "-a");
        put_hex(out, bits >> 12, 3);
        out.push(b'-');
        put_hex(out, bits >> 16, 12);
        out.push(b'"');
        out.extend_from_slice(&session.head);
        put(out, ",\"sequence\":");
        put_number(out, session.sequence);

        write_action(session, dice, orders, out);
        put(out, "},\"request\":{\"trace_id\":\"");
        put_hex(out, dice.bits(), 16);
        put(out, "\",\"latency_ms\":");
        put_number(out, 2 + dice.skewed(900));
        out.extend_from_slice(&session.tail);
        if dice.chance(LEAVE_PERCENT) {
            *session = Session::new(dice);
        }
    }
}

/// Appends what the visitor did: type, page and properties.
fn write_action(session: &mut Session, dice: &mut Dice, orders: &mut u64, out: &mut Vec<u8>) {
    let action = dice.below(100);
    if action < 45 {
        session.visit(Product::new(dice.skewed(PRODUCTS)));
    }
    put(out, ",\"type\":\"");
    put(
        out,
        match action {
            0..45 => "product_view",
            45..70 => "scroll",
            70..80 => "search",
            80..90 => "add_to_cart",
            90..93 => "purchase",
            93..98 => "click",
            _ => "error",
        },
    );
    put(out, "\",\"page\":{\"url\":\"");
    session.product.write_url(out);
    put(out, "\",\"referrer\":\"");
    out.extend_from_slice(&session.referrer);
    put(out, "\"},\"properties\":{");
    match action {
        0..45 => {
            session.product.write_fields(session.currency, out);
            put(out, ",\"load_ms\":");
            put_number(out, 80 + dice.skewed(4000));
        }
        45..70 => {
            put(out, "\"depth_percent\":");
            put_number(out, 10 * (1 + dice.below(10)));
            put(out, ",\"dwell_ms\":");
            put_number(out, 500 + dice.below(30_000));
        }
        70..80 => {
            put(out, "\"query\":\"");
            put(out, dice.pick_text(&QUERIES));
            put(out, "\",\"results\":");
            put_number(out, dice.skewed(400));
            put(out, ",\"took_ms\":");
            put_number(out, 5 + dice.skewed(300));
        }
        80..90 => {
            let quantity = 1 + dice.skewed(5);
            session.cart_items += quantity;
            session.cart_value += u64::from(quantity) * u64::from(session.product.price);
            session.product.write_fields(session.currency, out);
            put(out, ",\"quantity\":");
            put_number(out, quantity);
            write_cart(session, out);
        }
        90..93 => {
            *orders += 1;
            put(out, "\"order_id\":\"NO-");
            put_padded(out, *orders, 8);
            put(out, "\",\"payment\":\"");
            put(out, dice.pick_text(&["card", "paypal", "invoice", "apple_pay"]));
            put(out, "\",\"shipping\":\"");
            put(out, dice.pick_text(&["standard", "express", "pickup"]));
            out.push(b'"');
            write_cart(session, out);
            (session.cart_items, session.cart_value) = (0, 0);
        }
        93..98 => {
            put(out, "\"element\":\"");
            put(out, dice.pick_text(&["nav.menu", "button.compare", "a.related", "button.wishlist", "img.gallery", "tab.reviews"]));
            put(out, "\",\"x\":");
            put_number(out, dice.below(1200));
            put(out, ",\"y\":");
            put_number(out, dice.below(3000));
        }
        _ => {
            put(out, "\"code\":\"");
            put(out, dice.pick_text(&["timeout", "payment_declined", "out_of_stock", "script_error"]));
            put(out, "\",\"status\":");
            put_number(out, dice.pick(&[500_u32, 502, 504, 402, 409]).unwrap_or(500));
            put(out, ",\"retry\":");
            put(out, dice.pick_text(&["true", "false"]));
        }
    }
}

fn write_cart(session: &Session, out: &mut Vec<u8>) {
    put(out, ",\"cart\":{\"items\":");
    put_number(out, session.cart_items);
    put(out, ",\"value\":");
    put_hundredths(out, session.cart_value);
    put(out, ",\"currency\":\"");
    put(out, session.currency);
    put(out, "\"}");
}

impl RecordWriter for EventWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        self.write_event(out);
        out.push(b'\n');
    }
}
