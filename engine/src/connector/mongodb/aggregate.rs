//! Figures of many documents, which the server computes: a [`Question`] as an aggregation of MongoDB.

use ::bson::{Bson, Document, doc};
use ::mongodb::action::Action;
use ::mongodb::options::Collation;
use futures::TryStreamExt;

use super::MongodbSpec;
use super::client::collection;
use super::filter::filter;
use super::read::{in_part, unreachable};
use crate::connector::aggregate::{Fact, Question};
use crate::connector::documents::Part;
use crate::error::Result;

/// The answer's field with the number of documents.
pub(crate) const ROWS: &str = "rows";
/// That with the number of those whose values have other types than expected.
pub(crate) const UNFIT: &str = "unfit";

/// The answer's field with the fact of this index.
pub(crate) fn name(index: usize) -> String {
    format!("fact{index}")
}

/// The answer's fields with the least and the greatest of the integers whose sum is wanted.
pub(crate) fn bounds(index: usize) -> [String; 2] {
    [format!("fact{index}min"), format!("fact{index}max")]
}

/// The answer over these parts; empty, where they have no such documents.
pub(crate) async fn ask(spec: &MongodbSpec, parts: &[Part], question: &Question) -> Result<Document> {
    let parts: Vec<Document> = parts.iter().map(in_part).collect::<Result<_>>()?;
    // A collection's own collation would compare texts another way than SQL does.
    let has_texts = question.types.iter().any(|field| field.types.contains(&"string"));
    let simple = has_texts.then(|| Collation::builder().locale("simple").build());
    let collection = collection(spec).await?;
    let asked = collection.aggregate(pipeline(parts, question)).optional(simple, |asked, simple| asked.collation(simple)).await;
    let answers: Vec<Document> = asked.map_err(|e| unreachable(spec, &e))?.try_collect().await.map_err(|e| unreachable(spec, &e))?;
    Ok(answers.into_iter().next().unwrap_or_default())
}

fn pipeline(parts: Vec<Document>, question: &Question) -> [Document; 2] {
    let mut conditions = Vec::new();
    // Without one it is every document, which a server may count without looking at them.
    if !parts.iter().any(Document::is_empty) {
        conditions.push(doc! { "$or": parts });
    }
    conditions.extend(question.predicate.as_ref().map(filter));
    let matched = if conditions.is_empty() {
        doc! {}
    } else {
        doc! { "$and": conditions }
    };
    let mut group = doc! { "_id": Bson::Null, ROWS: { "$sum": 1 } };
    if !question.types.is_empty() {
        let unfit: Vec<Document> = question.types.iter().map(|field| doc! { "$not": [is_one_of(&field.path, &field.types)] }).collect();
        group.insert(UNFIT, one_if(doc! { "$or": unfit }));
    }
    for (index, fact) in question.wanted.iter().enumerate() {
        match fact {
            Fact::Rows => {}
            Fact::Count(path) => {
                let is_there = doc! { "$not": [is_one_of(path, &["null", "missing"])] };
                group.insert(name(index), one_if(is_there));
            }
            Fact::Min(path) => {
                group.insert(name(index), doc! { "$min": value(path) });
            }
            Fact::Max(path) => {
                group.insert(name(index), doc! { "$max": value(path) });
            }
            Fact::Sum(path) => {
                let [least, greatest] = bounds(index);
                group.insert(name(index), doc! { "$sum": value(path) });
                group.insert(least, doc! { "$min": value(path) });
                group.insert(greatest, doc! { "$max": value(path) });
            }
        }
    }
    [doc! { "$match": matched }, doc! { "$group": group }]
}

fn value(path: &str) -> String {
    format!("${path}")
}

fn is_one_of(path: &str, types: &[&str]) -> Document {
    doc! { "$in": [{ "$type": value(path) }, types] }
}

fn one_if(condition: Document) -> Document {
    doc! { "$sum": { "$cond": [condition, 1, 0] } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::aggregate::FieldTypes;
    use crate::connector::predicate::Predicate;

    #[test]
    fn a_count_of_all_looks_at_nothing() {
        let question = Question { predicate: None, types: Vec::new(), wanted: vec![Fact::Rows] };
        let [matched, group] = pipeline(vec![doc! {}], &question);
        assert_eq!(matched, doc! { "$match": {} });
        assert_eq!(group, doc! { "$group": { "_id": Bson::Null, "rows": { "$sum": 1 } } });
    }

    #[test]
    fn parts_filter_and_types_are_in_one_question() {
        let types = vec![FieldTypes { path: "n".to_string(), types: vec!["int", "long"] }];
        let predicate = Some(Predicate::IsNotNull("n".to_string()));
        let question = Question { predicate, types, wanted: vec![Fact::Min("n".to_string()), Fact::Sum("n".to_string())] };
        let parts = vec![doc! { "_id": { "$gte": "a" } }, doc! { "_id": { "$lt": "a" } }];
        let [matched, group] = pipeline(parts, &question);
        assert_eq!(matched.get_document("$match").unwrap().get_array("$and").unwrap().len(), 2);
        let group = group.get_document("$group").unwrap();
        assert_eq!(group.keys().collect::<Vec<_>>(), ["_id", "rows", "unfit", "fact0", "fact1", "fact1min", "fact1max"]);
        assert_eq!(group.get_document("fact0").unwrap(), &doc! { "$min": "$n" });
    }
}
