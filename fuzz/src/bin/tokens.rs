#![no_main]

bitbrat_fuzz::target!(tokens);
