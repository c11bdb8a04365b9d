//! a_second_process_is_refused
