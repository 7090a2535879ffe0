//! Delivery against collectors that behave badly.
