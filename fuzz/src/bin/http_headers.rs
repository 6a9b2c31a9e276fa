#![no_main]

bitbrat_fuzz::target!(http_headers);
