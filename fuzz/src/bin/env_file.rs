#![no_main]

bitbrat_fuzz::target!(env_file);
