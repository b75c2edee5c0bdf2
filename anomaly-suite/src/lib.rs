//! The anomaly suite.
