package capture

// One object serves every little-endian machine: nothing in it depends on the
// architecture, and where the kernel keeps what is read is found at loading.
//
//go:generate go tool bpf2go -go-package capture -target bpfel -type record -type endpoint -type settings -cflags "-O2 -g -Wall -Wextra -Werror" kernel bpf/capture.bpf.c
