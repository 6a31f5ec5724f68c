package keyring

// Held is how many tenants' key sets and how many server certificates r has in memory.
func (r *Ring) Held() (sets, leaves int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sets), len(r.leaves)
}
