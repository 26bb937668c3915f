//! The daemon: one supervisor that listens, one process for each session.
mod book;
mod config;
mod control;
mod event;
mod metrics;
mod notify;
mod sandbox;
pub use book::Refusal;
pub use config::{
    Access, Config, ConfigError, Module, ModuleKey, Principal, ServeLimits, parse_config, parse_listen, parse_metrics,
};
pub use event::{Client, MovedTotals, ServeEvent, ServeLog, Severity};
