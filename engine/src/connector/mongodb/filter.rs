//! A [`Predicate`] as a filter of MongoDB, which lets through all that fulfils it.

use ::bson::{Bson, DateTime, Document, doc};

use crate::connector::predicate::{Comparison, Literal, Predicate};

/// BSON's number for the type `undefined`, which is read as NULL.
const UNDEFINED: i32 = 6;
/// That of null.
const NULL: i32 = 10;

/// The filter of a find.
pub(super) fn filter(predicate: &Predicate) -> Document {
    match predicate {
        Predicate::And(parts) => doc! { "$and": parts.iter().map(filter).collect::<Vec<_>>() },
        Predicate::Or(parts) => doc! { "$or": parts.iter().map(filter).collect::<Vec<_>>() },
        Predicate::IsNull(path) => doc! { "$or": [{ path: Bson::Null }, { path: { "$type": UNDEFINED } }] },
        Predicate::IsNotNull(path) => doc! { path: { "$exists": true, "$not": { "$type": NULL } } },
        Predicate::In { path, values } => {
            let filter = doc! { path: { "$in": values.iter().map(bson).collect::<Vec<_>>() } };
            if values.iter().any(|value| matches!(value, Literal::Text(_))) { or_object_id(path, filter) } else { filter }
        }
        Predicate::Compare { path, comparison, value } => compare(path, *comparison, value),
    }
}

fn compare(path: &str, comparison: Comparison, value: &Literal) -> Document {
    let is_double = matches!(value, Literal::Double(_));
    let operator = match comparison {
        Comparison::Equal => "$eq",
        // NULL is not unequal to anything here.
        Comparison::NotEqual => return doc! { path: { "$nin": [bson(value), Bson::Null] } },
        // Both zeros are equal there, and one is below the other here: the plan takes out what is too much.
        Comparison::Less if is_double => "$lte",
        Comparison::Greater if is_double => "$gte",
        Comparison::Less => "$lt",
        Comparison::LessOrEqual => "$lte",
        Comparison::Greater => "$gt",
        Comparison::GreaterOrEqual => "$gte",
    };
    let filter = doc! { path: { operator: bson(value) } };
    match value {
        // NaN is above all numbers here, and below them there.
        Literal::Double(_) if matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual) => {
            doc! { "$or": [filter, { path: f64::NAN }] }
        }
        Literal::Text(_) => or_object_id(path, filter),
        _ => filter,
    }
}

/// An ObjectId is a text here, and none there.
fn or_object_id(path: &str, filter: Document) -> Document {
    doc! { "$or": [filter, { path: { "$type": "objectId" } }] }
}

fn bson(value: &Literal) -> Bson {
    match value {
        Literal::Boolean(value) => Bson::Boolean(*value),
        Literal::Integer(value) => Bson::Int64(*value),
        Literal::Double(value) => Bson::Double(*value),
        Literal::Text(value) => Bson::String(value.clone()),
        Literal::Millis(value) => Bson::DateTime(DateTime::from_millis(*value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_let_through_what_has_another_place_in_the_order_there() {
        let compared = |comparison, value| compare("x", comparison, &value);
        assert_eq!(compared(Comparison::Less, Literal::Integer(3)), doc! { "x": { "$lt": 3_i64 } });
        assert_eq!(compared(Comparison::Less, Literal::Double(0.0)), doc! { "x": { "$lte": 0.0 } });
        assert!(compared(Comparison::Greater, Literal::Double(1.0)).to_string().contains("NaN"));
        assert!(compared(Comparison::Equal, Literal::Text("a".into())).to_string().contains("objectId"));
        let all = filter(&Predicate::And(vec![Predicate::IsNull("a.b".into()), Predicate::IsNotNull("c".into())]));
        assert_eq!(all.get_array("$and").unwrap().len(), 2);
    }
}
