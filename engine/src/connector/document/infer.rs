//! The schema of a sample of documents.

use std::collections::HashMap;

use bson::spec::ElementType;
use bson::{RawBsonRef, RawDocument};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::decimal::unpack_decimal;
use super::types::{DECIMAL_DIGITS_MAX, NESTING_LEVELS_MAX, type_name};
use crate::{Error, Result};

/// Derives a schema which every document of the sample fits: fields in the order of their first appearance, all nullable.
///
/// int32 and int64 merge to Int64, integers and doubles to Float64, integers and decimals to Decimal128 with as many
/// fractional digits as the sample needs. A field which is NULL throughout becomes Null.
///
/// # Errors
/// `Config`, naming the field: two documents have it with types that do not merge, or its type has no column type.
/// `Decode`: a document is not well-formed BSON.
pub fn infer_schema<'a>(sample: impl IntoIterator<Item = &'a [u8]>) -> Result<Schema> {
    let mut fields = Shapes::default();
    for bytes in sample {
        let document = RawDocument::from_bytes(bytes).map_err(malformed)?;
        fields.observe(document, "", 1)?;
    }
    Ok(Schema::new(fields.into_fields()))
}

fn malformed(error: bson::raw::Error) -> Error {
    Error::decode("cannot read a sample document").with_source(error)
}

/// What a field was seen to hold.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Null,
    Simple(ElementType),
    /// Fractional digits.
    Decimal(u32),
    Array(Box<Self>),
    Document(Shapes),
}

/// Fields of one level of the documents.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shapes {
    fields: Vec<(String, Shape)>,
    positions: HashMap<String, usize>,
}

impl Shapes {
    fn observe(&mut self, document: &RawDocument, parent: &str, level: usize) -> Result<()> {
        if level > NESTING_LEVELS_MAX {
            return Err(Error::config(format!("field `{parent}` is nested deeper than {NESTING_LEVELS_MAX} levels")));
        }
        for element in document {
            let (name, value) = element.map_err(malformed)?;
            let position = match self.positions.get(name) {
                Some(position) => *position,
                None => {
                    self.positions.insert(name.to_owned(), self.fields.len());
                    self.fields.push((name.to_owned(), Shape::Null));
                    self.fields.len() - 1
                }
            };
            if let Some((_, shape)) = self.fields.get_mut(position) {
                let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
                shape.observe(value, &path, level)?;
            }
        }
        Ok(())
    }

    fn into_fields(self) -> Vec<Field> {
        self.fields.into_iter().map(|(name, shape)| Field::new(name, shape.into_type(), true)).collect()
    }
}

impl Shape {
    fn observe(&mut self, value: RawBsonRef<'_>, path: &str, level: usize) -> Result<()> {
        match value {
            RawBsonRef::Null | RawBsonRef::Undefined => return Ok(()),
            RawBsonRef::Document(document) => {
                if *self == Self::Null {
                    *self = Self::Document(Shapes::default());
                }
                if let Self::Document(shapes) = self {
                    return shapes.observe(document, path, level + 1);
                }
            }
            RawBsonRef::Array(array) => {
                if level >= NESTING_LEVELS_MAX {
                    return Err(Error::config(format!("field `{path}` is nested deeper than {NESTING_LEVELS_MAX} levels")));
                }
                if *self == Self::Null {
                    *self = Self::Array(Box::new(Self::Null));
                }
                if let Self::Array(item) = self {
                    let path = format!("{path}[]");
                    for value in array {
                        item.observe(value.map_err(malformed)?, &path, level + 1)?;
                    }
                    return Ok(());
                }
            }
            _ => {
                if let Some(merged) = self.merge_simple(value, path)? {
                    *self = merged;
                    return Ok(());
                }
            }
        }
        Err(Error::config(format!(
            "field `{path}` is {} in one document and {} in another; declare the table's columns to choose what to read",
            self.name(),
            type_name(value.element_type())
        )))
    }

    fn merge_simple(&self, value: RawBsonRef<'_>, path: &str) -> Result<Option<Self>> {
        use ElementType::{Double, Int32, Int64};
        let element = value.element_type();
        let found = match value {
            // An infinite decimal or NaN says nothing about the digits of the others; it fails when it is read.
            RawBsonRef::Decimal128(decimal) => Self::Decimal(unpack_decimal(decimal.bytes()).map_or(0, |decimal| decimal.scale_needed())),
            _ => match element {
                ElementType::Symbol | ElementType::ObjectId => Self::Simple(ElementType::String),
                ElementType::Boolean | Int32 | Int64 | Double | ElementType::String | ElementType::Binary | ElementType::DateTime => {
                    Self::Simple(element)
                }
                _ => {
                    let name = type_name(element);
                    return Err(Error::config(format!(
                        "field `{path}` is of type {name}, which no column can hold; declare the table's columns without it"
                    )));
                }
            },
        };
        if let Self::Decimal(scale) = found
            && scale > u32::from(DECIMAL_DIGITS_MAX)
        {
            return Err(Error::config(format!("field `{path}` has {scale} fractional digits, which no column can hold")));
        }
        Ok(match (self, &found) {
            (Self::Null, _) => Some(found),
            (Self::Simple(Int32 | Int64), Self::Simple(Int32 | Int64)) if *self != found => Some(Self::Simple(Int64)),
            (Self::Simple(Int32 | Int64 | Double), Self::Simple(Int32 | Int64 | Double)) if *self != found => Some(Self::Simple(Double)),
            (Self::Decimal(scale), Self::Decimal(other)) => Some(Self::Decimal(*scale.max(other))),
            (Self::Decimal(scale), Self::Simple(Int32 | Int64)) | (Self::Simple(Int32 | Int64), Self::Decimal(scale)) => {
                Some(Self::Decimal(*scale))
            }
            _ => (*self == found).then_some(found),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Simple(element) => type_name(*element),
            Self::Decimal(_) => type_name(ElementType::Decimal128),
            Self::Array(_) => type_name(ElementType::Array),
            Self::Document(_) => type_name(ElementType::EmbeddedDocument),
        }
    }

    fn into_type(self) -> DataType {
        match self {
            Self::Simple(ElementType::Boolean) => DataType::Boolean,
            Self::Simple(ElementType::Int32) => DataType::Int32,
            Self::Simple(ElementType::Int64) => DataType::Int64,
            Self::Simple(ElementType::Double) => DataType::Float64,
            Self::Simple(ElementType::String) => DataType::Utf8,
            Self::Simple(ElementType::Binary) => DataType::Binary,
            Self::Simple(ElementType::DateTime) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Null | Self::Simple(_) => DataType::Null,
            Self::Decimal(scale) => DataType::Decimal128(DECIMAL_DIGITS_MAX, i8::try_from(scale).unwrap_or_default()),
            Self::Array(item) => DataType::List(Field::new_list_field(item.into_type(), true).into()),
            Self::Document(shapes) => DataType::Struct(shapes.into_fields().into()),
        }
    }
}
