complete -c rblocksync -l source-format -d 'Format of SRC: raw or qcow2; never guessed' -r
complete -c rblocksync -l target-format -d 'Format of DST: raw or qcow2; never guessed' -r
complete -c rblocksync -l block-size -d 'Unit of comparison and transfer, in multiples of 4 KiB' -r
complete -c rblocksync -l hash -d 'Hash function that finds differences' -r -f -a "blake3\t'BLAKE3'
sha256\t'SHA-256'"
complete -c rblocksync -l bwlimit -d 'Send at most this many bytes of data a second (K, M, G), as they travel' -r
complete -c rblocksync -l compress -d 'Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19' -r
complete -c rblocksync -l threads -d 'Threads on each side that read, hash and write; by default twice the processors, 4 to 8' -r
complete -c rblocksync -l streams -d 'SSH connections that share the data of a disk: auto, or 1 to 16' -r
complete -c rblocksync -l map -d 'Draw a map of the image to this file (.svg, .png): holes, unchanged, changed, zeroed' -r -F
complete -c rblocksync -l progress -d 'Show live progress' -r -f -a "auto\t'A live line on a terminal, a line every ten seconds otherwise'
always\t'A live line even if the output is not a terminal'
never\t'None'"
complete -c rblocksync -l ssh-config -d 'SSH configuration file to use instead of the user\'s' -r -F
complete -c rblocksync -l cipher -d 'Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)' -r
complete -c rblocksync -l config -d 'Configuration file to read instead of the usual one in /etc; /dev/null for none' -r -F
complete -c rblocksync -l config-check -d 'Check the configuration file, or FILE, tell what it sets, and end' -r -F
complete -c rblocksync -l truncate -d 'Create DST, or change its size to SRC\'s; only for files'
complete -c rblocksync -l ignore-size -d 'Sync the part that both have if their sizes differ'
complete -c rblocksync -l dry-run -d 'Compare and tell what would be sent; change nothing'
complete -c rblocksync -l verify -d 'Read back from the medium what was written, and check it'
complete -c rblocksync -l direct -d 'Read and write files past the page cache, as devices always are'
complete -c rblocksync -s q -l quiet -d 'Print nothing but errors'
complete -c rblocksync -l json -d 'Print events and the result as JSON, one object a line, on standard output'
complete -c rblocksync -l accept-new-host-key -d 'Accept and remember the key of a host that is not known yet (never one that changed)'
complete -c rblocksync -l config-show -d 'Print all options as they hold by the configuration file and the environment, and end'
complete -c rblocksync -l config-defaults -d 'Print the configuration file that changes nothing, with all options explained, and end'
complete -c rblocksync -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rblocksync -s V -l version -d 'Print version'
