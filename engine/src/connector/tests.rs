//! What the world writes into a statement: any location and any value of any option is taken or is an error, and never a panic.

use std::collections::HashMap;

use proptest::prelude::*;

use super::blob::BlobSpec;
use super::bson::BsonSpec;
use super::kafka::KafkaSpec;
use super::mongodb::MongodbSpec;
use crate::error::{Error, Result};
use crate::reference::{FormatOptions, table_options};

/// A format's prefix, a location which it takes, how its table is read, and the options which it knows.
type Format = (&'static str, &'static str, Read, Vec<String>);

/// Location and options → a table or an error.
type Read = fn(&str, &HashMap<String, String>) -> Result<()>;

fn formats() -> Vec<Format> {
    let of = |(_, prefix, known, _): FormatOptions| {
        let (location, read): (_, Read) = match prefix {
            "blob" => ("s3://bucket/a/", |location, options| BlobSpec::try_new(location, options).map(drop)),
            "bson" => ("s3://bucket/a", |location, options| BsonSpec::try_new(location, options).map(drop)),
            "kafka" => ("kafka://host:9092/topic", |location, options| KafkaSpec::try_new(location, options).map(drop)),
            "mongodb" => ("mongodb://host/a.b", |location, options| MongodbSpec::try_new(location, options).map(drop)),
            other => panic!("how are options of {other} read?"),
        };
        (prefix, location, read, known.iter().map(|option| format!("{prefix}.{}", option.name.trim_end_matches('…'))).collect())
    };
    table_options().unwrap().into_iter().map(of).collect()
}

/// Numbers with units at the edges of their types, JSON, lists, and anything at all.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{0,25}(\\.[0-9]{0,3})? ?[a-zA-Z]{0,4}",
        "[\\[{]\"?[a-z0-9]{0,6}\"?[:,]?-?[0-9]{0,22}[\\]}]{0,2}",
        "[a-z_]{1,12}(, ?[a-z_:0-9]{0,6}){0,3}",
        ".{0,30}",
    ]
}

/// An error of configuration, told in one line.
fn is_one_clear_line(error: &Error) -> bool {
    let text = error.to_string();
    error.exit_code() == 2 && !text.is_empty() && !text.contains('\n')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_value_of_any_option_is_taken_or_refused_by_name(which in any::<prop::sample::Index>(), option in any::<prop::sample::Index>(), value in value()) {
        let formats = formats();
        let (_, location, read, known) = &formats[which.index(formats.len())];
        let option = &known[option.index(known.len())];
        if let Err(error) = read(location, &HashMap::from([(option.clone(), value)])) {
            let name = option.trim_end_matches('.').rsplit('.').next().unwrap();
            prop_assert!(is_one_clear_line(&error) && error.to_string().contains(name), "{option}: {error}");
        }
    }

    #[test]
    fn any_options_are_taken_or_refused(options in prop::collection::hash_map("(blob|mongodb|bson|kafka|format)\\.[a-z_]{0,14}|.{0,12}", value(), 0..4)) {
        for (format, location, read, _) in formats() {
            if let Err(error) = read(location, &options) {
                prop_assert!(is_one_clear_line(&error), "{format}: {error}");
            }
        }
    }

    #[test]
    fn any_location_is_taken_or_refused(which in any::<prop::sample::Index>(), scheme in "(s3|file|kafka|mongodb|mongodb\\+srv|[a-z]{0,4})(://|:|)", rest in ".{0,40}") {
        let formats = formats();
        let (format, _, read, _) = &formats[which.index(formats.len())];
        if let Err(error) = read(&format!("{scheme}{rest}"), &HashMap::new()) {
            prop_assert!(is_one_clear_line(&error), "{format}: {error}");
        }
    }
}
