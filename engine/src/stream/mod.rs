//! Streaming queries: an INSERT from a KAFKA table, again and again, one bounded job for each trigger.
//!
//! | place | holds |
//! | --- | --- |
//! | [`driver`] | the driver: recover → resolve offsets → begin → run → commit → wait |
//! | [`log`] | the files of a query: offsets, commits, epochs |
//! | [`history`] | all its micro-batches, and how the files of old ones are folded into one |
//! | [`audit`] | a whole query for `baler verify` |
//! | [`plan`] | what the next micro-batch takes, under its caps |
//! | [`lag`] | how far it is behind, and how long what it needs is kept |
//! | [`group`] | offsets for tools which show the lag of a consumer group |
//!
//! Plans, sinks, receipts and the job of a micro-batch are those of `baler run`.

pub mod audit;
pub mod driver;
pub mod group;
pub mod history;
pub mod lag;
pub mod log;
pub mod plan;
