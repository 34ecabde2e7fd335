//! Documents → batches, bounded by bytes, documents and age. Before: encoded rows; after: [`Batch`]es for a sink.

use std::time::{Duration, Instant};

use super::document::Documents;

/// Bounds of one batch. The first one that is met sends it.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Bytes of all documents; a single larger document goes alone.
    pub bytes_max: usize,
    /// Documents.
    pub docs_max: usize,
    /// How long the first document may wait for others.
    pub age_max: Duration,
}

/// Documents which travel together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Number of documents.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The documents, one after the other: the layout of a BSON dump.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, taken.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Each document's bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, end| {
            let document = &self.bytes[*start..*end];
            *start = *end;
            Some(document)
        })
    }

    /// Adds one document.
    pub fn push(&mut self, document: &[u8]) {
        self.bytes.extend_from_slice(document);
        self.ends.push(self.bytes.len());
    }
}

/// Documents of one encoder call which are together at least this large are a batch by themselves, as are the chunks of one batch of a scan.
/// Below it, a round trip to the server costs more than a copy.
const WHOLE_BYTES_MIN: usize = 256 << 10;

/// Gathers documents into batches.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: BatchLimits,
    open: Batch,
    opened: Option<Instant>,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, open: Batch::default(), opened: None }
    }

    /// Adds documents and gives the batches which they complete.
    pub fn add(&mut self, documents: Documents) -> Vec<Batch> {
        let mut full = Vec::new();
        let (bytes, docs) = (documents.as_bytes().len(), documents.len());
        if bytes >= WHOLE_BYTES_MIN && bytes <= self.limits.bytes_max && docs <= self.limits.docs_max {
            // Large enough to go as it is: nothing is copied.
            full.extend(self.take());
            let ends = documents.ends().to_vec();
            full.push(Batch { bytes: documents.into_bytes(), ends });
            return full;
        }
        for document in documents.iter() {
            if !self.open.is_empty() && self.open.bytes.len() + document.len() > self.limits.bytes_max {
                full.extend(self.take());
            }
            if self.open.is_empty() {
                self.opened = Some(Instant::now());
            }
            self.open.push(document);
            if self.open.len() >= self.limits.docs_max || self.open.bytes.len() >= self.limits.bytes_max {
                full.extend(self.take());
            }
        }
        full
    }

    /// When the open batch must leave, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.limits.age_max)
    }

    /// The open batch, if it holds anything.
    pub fn take(&mut self) -> Option<Batch> {
        self.opened = None;
        (!self.open.is_empty()).then(|| std::mem::take(&mut self.open))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, BinaryArray, Int32Array, RecordBatch};

    use super::*;
    use crate::connector::document::DocumentEncoder;

    fn documents(sizes: &[usize]) -> Documents {
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..sizes.len() as i32));
        let data: ArrayRef = Arc::new(BinaryArray::from_iter_values(sizes.iter().map(|size| vec![7u8; *size])));
        let batch = RecordBatch::try_from_iter([("_id", ids), ("data", data)]).unwrap();
        DocumentEncoder::try_new(&batch.schema()).unwrap().encode(&batch).unwrap()
    }

    /// Document counts of the batches that come out when `parts` go in.
    fn counts(limits: BatchLimits, parts: &[&[usize]]) -> Vec<usize> {
        let mut builder = BatchBuilder::new(limits);
        let mut batches: Vec<Batch> = parts.iter().flat_map(|sizes| builder.add(documents(sizes))).collect();
        batches.extend(builder.take());
        assert!(batches.iter().all(|batch| batch.len() == 1 || batch.bytes().len() <= limits.bytes_max));
        assert!(batches.iter().all(|batch| batch.iter().map(<[u8]>::len).sum::<usize>() == batch.bytes().len()));
        batches.iter().map(Batch::len).collect()
    }

    #[test]
    fn a_batch_stays_under_its_bytes_and_documents() {
        let limits = BatchLimits { bytes_max: 1000, docs_max: 3, age_max: Duration::from_secs(1) };
        assert_eq!(counts(limits, &[&[10, 10], &[10, 10]]), [3, 1]);
        assert_eq!(counts(limits, &[&[400, 400, 400], &[5000], &[10]]), [2, 1, 1, 1]);
        let large = BatchLimits { bytes_max: 8 << 20, docs_max: 100, age_max: Duration::from_secs(1) };
        assert_eq!(counts(large, &[&[10], &[1 << 20, 1 << 20], &[10]]), [1, 2, 1]);
    }
}
