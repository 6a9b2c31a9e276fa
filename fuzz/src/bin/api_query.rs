#![no_main]

bitbrat_fuzz::target!(api_query);
