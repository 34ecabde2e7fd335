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
    pub fn add(&mut self, documents: &Documents) -> Vec<Batch> {
        let mut full = Vec::new();
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
