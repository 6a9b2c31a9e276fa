#![no_main]

bitbrat_fuzz::target!(state_rows);
