//! The spool against a model, damage and full disks.
