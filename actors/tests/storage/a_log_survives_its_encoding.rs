//! a_log_survives_its_encoding
