//! Builders of arrays which hold other arrays.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::{RawBsonRef, RawDocument};
use datafusion::arrow::array::{
    ArrayRef, FixedSizeListArray, GenericListArray, GenericListViewArray, MapArray, NullBufferBuilder, OffsetSizeTrait, StructArray,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use datafusion::arrow::datatypes::{DataType, FieldRef, Fields};
use datafusion::arrow::error::ArrowError;

use super::builders::{Boxed, Builder, Fault, new_builder};
use crate::{Error, Result};

fn broken(error: ArrowError) -> Error {
    Error::decode("cannot make a column of the documents' values").with_source(error)
}

/// BSON's two words for NULL as one.
fn present(value: RawBsonRef<'_>) -> Option<RawBsonRef<'_>> {
    (!matches!(value, RawBsonRef::Null | RawBsonRef::Undefined)).then_some(value)
}

fn check_null(field: &FieldRef, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
    if value.is_none() && !field.is_nullable() {
        return Err(Fault::new("is missing or null, and the column is NOT NULL"));
    }
    Ok(())
}

/// Offsets of rows which have these lengths, from 0.
fn offsets<O: OffsetSizeTrait>(lengths: &[usize]) -> Result<Vec<O>> {
    let mut offsets = Vec::with_capacity(lengths.len() + 1);
    let mut end = 0;
    offsets.push(O::zero());
    for length in lengths {
        end += length;
        offsets.push(O::from_usize(end).ok_or_else(|| Error::decode("the batch has too many list items: read fewer documents at once"))?);
    }
    Ok(offsets)
}

/// A builder for each field of a document.
pub(super) struct StructBuilder {
    fields: Fields,
    builders: Vec<Boxed>,
    positions: HashMap<String, usize>,
    nulls: NullBufferBuilder,
    /// The row in which each field was last seen, counted from 1.
    seen: Vec<usize>,
}

impl StructBuilder {
    /// A builder for these fields, with room for `rows`.
    pub(super) fn try_new(fields: &Fields, rows: usize) -> Result<Self> {
        Ok(Self {
            fields: fields.clone(),
            builders: fields.iter().map(|field| new_builder(field.data_type(), rows)).collect::<Result<_>>()?,
            positions: fields.iter().enumerate().map(|(position, field)| (field.name().clone(), position)).collect(),
            nulls: NullBufferBuilder::new(rows),
            seen: vec![0; fields.len()],
        })
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// The columns without the struct around them.
    pub(super) fn finish_columns(&mut self) -> Result<Vec<ArrayRef>> {
        self.builders.iter_mut().map(|builder| builder.finish()).collect()
    }

    fn append_document(&mut self, document: &RawDocument) -> Result<(), Fault> {
        self.nulls.append_non_null();
        let row = self.nulls.len();
        // Documents mostly have their fields in the order of the columns.
        let mut next = 0;
        for element in document.iter_elements() {
            let element = element?;
            let name = element.key();
            let position = match self.fields.get(next) {
                Some(field) if field.name() == name => next,
                _ => match self.positions.get(name) {
                    Some(position) => *position,
                    None => continue,
                },
            };
            next = position + 1;
            let (Some(field), Some(builder), Some(seen)) =
                (self.fields.get(position), self.builders.get_mut(position), self.seen.get_mut(position))
            else {
                continue;
            };
            if *seen == row {
                return Err(Fault::new("is there twice").within(name));
            }
            *seen = row;
            let value = element.value().map_err(|error| Fault::from(error).within(name))?;
            let value = present(value);
            check_null(field, value).and_then(|()| builder.append(value)).map_err(|fault| fault.within(name))?;
        }
        for ((field, builder), seen) in self.fields.iter().zip(&mut self.builders).zip(&self.seen) {
            if *seen != row {
                check_null(field, None).and_then(|()| builder.append(None)).map_err(|fault| fault.within(field.name()))?;
            }
        }
        Ok(())
    }
}

impl Builder for StructBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            Some(RawBsonRef::Document(document)) => self.append_document(document),
            Some(value) => Err(Fault::unfit(value, &DataType::Struct(self.fields.clone()))),
            None => {
                self.nulls.append_null();
                self.builders.iter_mut().try_for_each(|builder| builder.append(None))
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.nulls.len();
        let columns = self.finish_columns()?;
        let array = StructArray::try_new_with_length(self.fields.clone(), columns, self.nulls.finish(), rows);
        Ok(Arc::new(array.map_err(broken)?))
    }
}

/// Arrays as any of the five forms of list.
pub(super) struct ListBuilder {
    list: DataType,
    item: FieldRef,
    items: Boxed,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl ListBuilder {
    pub(super) fn new(list: DataType, item: FieldRef, items: Boxed) -> Self {
        Self { list, item, items, lengths: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    /// The length of every row, if the type says so.
    fn fixed_length(&self) -> Option<usize> {
        match &self.list {
            DataType::FixedSizeList(_, size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }

    fn finish_list<O: OffsetSizeTrait>(&mut self, items: ArrayRef) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(offsets::<O>(&self.lengths)?.into());
        Ok(Arc::new(GenericListArray::try_new(self.item.clone(), offsets, items, self.nulls.finish()).map_err(broken)?))
    }

    fn finish_views<O: OffsetSizeTrait>(&mut self, items: ArrayRef) -> Result<ArrayRef> {
        let ends = offsets::<O>(&self.lengths)?;
        let sizes: Vec<O> = ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
        let starts: ScalarBuffer<O> = ends.into_iter().take(sizes.len()).collect();
        let array = GenericListViewArray::try_new(self.item.clone(), starts, sizes.into(), items, self.nulls.finish());
        Ok(Arc::new(array.map_err(broken)?))
    }
}

impl Builder for ListBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        let mut length = 0;
        match value {
            Some(RawBsonRef::Array(array)) => {
                self.nulls.append_non_null();
                for value in array {
                    let append = value.map_err(Fault::from).and_then(|value| {
                        let value = present(value);
                        check_null(&self.item, value).and_then(|()| self.items.append(value))
                    });
                    append.map_err(|fault| fault.within(&format!("[{length}]")))?;
                    length += 1;
                }
                if self.fixed_length().is_some_and(|fixed| fixed != length) {
                    return Err(Fault::new(format!("holds an array of {length} items, which is no {}", self.list)));
                }
            }
            Some(value) => return Err(Fault::unfit(value, &self.list)),
            None => {
                self.nulls.append_null();
                length = self.fixed_length().unwrap_or(0);
                (0..length).try_for_each(|_| self.items.append(None))?;
            }
        }
        self.lengths.push(length);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let items = self.items.finish()?;
        match self.list {
            DataType::List(_) => self.finish_list::<i32>(items),
            DataType::LargeList(_) => self.finish_list::<i64>(items),
            DataType::ListView(_) => self.finish_views::<i32>(items),
            DataType::LargeListView(_) => self.finish_views::<i64>(items),
            _ => {
                let size = i32::try_from(self.fixed_length().unwrap_or(0)).unwrap_or(0);
                let rows = self.lengths.len();
                let array = FixedSizeListArray::try_new_with_length(self.item.clone(), size, items, self.nulls.finish(), rows);
                Ok(Arc::new(array.map_err(broken)?))
            }
        }
    }
}

/// Documents as maps from names to values.
pub(super) struct MapBuilder {
    entries: FieldRef,
    sorted: bool,
    keys: Boxed,
    values: Boxed,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl MapBuilder {
    pub(super) fn new(entries: FieldRef, sorted: bool, keys: Boxed, values: Boxed) -> Self {
        Self { entries, sorted, keys, values, lengths: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    fn append_document(&mut self, document: &RawDocument) -> Result<(), Fault> {
        let nullable = super::types::map_fields(&self.entries).map(|(_, value)| value.clone());
        let mut names = HashSet::new();
        for element in document {
            let (name, value) = element?;
            let value = present(value);
            if !names.insert(name) {
                return Err(Fault::new("is there twice").within(name));
            }
            self.keys.append(Some(RawBsonRef::String(name)))?;
            let checked = nullable.as_ref().map_or(Ok(()), |field| check_null(field, value));
            checked.and_then(|()| self.values.append(value)).map_err(|fault| fault.within(name))?;
        }
        self.nulls.append_non_null();
        self.lengths.push(names.len());
        Ok(())
    }
}

impl Builder for MapBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            Some(RawBsonRef::Document(document)) => self.append_document(document)?,
            Some(value) => return Err(Fault::unfit(value, &DataType::Map(self.entries.clone(), self.sorted))),
            None => {
                self.nulls.append_null();
                self.lengths.push(0);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let DataType::Struct(fields) = self.entries.data_type() else {
            return Err(Error::internal("a map's entries are no struct"));
        };
        let columns = vec![self.keys.finish()?, self.values.finish()?];
        let entries = StructArray::try_new(fields.clone(), columns, None).map_err(broken)?;
        let offsets = OffsetBuffer::new(offsets::<i32>(&self.lengths)?.into());
        let array = MapArray::try_new(self.entries.clone(), offsets, entries, self.nulls.finish(), self.sorted);
        Ok(Arc::new(array.map_err(broken)?))
    }
}

/// Another layout of the same values: views, dictionaries, runs.
pub(super) struct CastBuilder {
    values: Boxed,
    to: DataType,
}

impl CastBuilder {
    /// Builds values of type `from` and lays them out as `to` at the end.
    pub(super) fn boxed(from: &DataType, to: DataType, rows: usize) -> Result<Boxed> {
        if !can_cast_types(from, &to) {
            return Err(Error::config(format!("cannot read a column of type {to}: declare it as {from}")));
        }
        Ok(Box::new(Self { values: new_builder(from, rows)?, to }))
    }
}

impl Builder for CastBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        self.values.append(value)
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&self.values.finish()?, &self.to, &options).map_err(broken)
    }
}
