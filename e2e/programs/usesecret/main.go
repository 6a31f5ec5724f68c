// Command usesecret is a program that knows nothing of Innate: it takes a
// password from PASSWORD and a key from the file at KEY_FILE, prints the
// SHA-256 of both, and then, carelessly, the password.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
)

func main() {
	key, err := os.ReadFile(os.Getenv("KEY_FILE"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	password := os.Getenv("PASSWORD")
	fmt.Printf("%x\n", sha256.Sum256(append([]byte(password), key...)))
	fmt.Printf("debug: {password:%s}\n", password)
}
