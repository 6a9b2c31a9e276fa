#![no_main]

bitbrat_fuzz::target!(document);
