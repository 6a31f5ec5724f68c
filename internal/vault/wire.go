package vault

// The bodies of Key Vault's data plane. Times are unix seconds.

// SetRequest is the body of PUT /secrets/{name}.
type SetRequest struct {
	// Value is the secret, at most [MaxValue] bytes. It has to be there; it
	// may be empty.
	Value *string `json:"value"`
	// ContentType says what the value is, at most [MaxContentType] characters.
	ContentType string `json:"contentType,omitempty"`
	// Tags are at most [MaxTags].
	Tags       map[string]string  `json:"tags,omitempty"`
	Attributes *RequestAttributes `json:"attributes,omitempty"`
}

// UpdateRequest is the body of PATCH /secrets/{name}/{version}. A member that
// is absent or null stays as it is; "tags":{} takes all tags away.
type UpdateRequest struct {
	ContentType *string            `json:"contentType,omitempty"`
	Tags        map[string]string  `json:"tags,omitempty"`
	Attributes  *RequestAttributes `json:"attributes,omitempty"`
}

// RequestAttributes are the attributes that a client sets.
type RequestAttributes struct {
	// Enabled false keeps the version from being read. Absent: enabled when
	// set, unchanged when updated.
	Enabled *bool `json:"enabled,omitempty"`
	// NotBefore and Expires inform the reader; absent means unset or unchanged.
	NotBefore *int64 `json:"nbf,omitempty"`
	Expires   *int64 `json:"exp,omitempty"`
}

// Bundle is a secret in an answer. Azure's "managed" and "kid" say that a
// certificate stands behind a secret; here there are none, so both are absent.
type Bundle struct {
	// Value is in the answers to set and get only.
	Value *string `json:"value,omitempty"`
	// ID is https://{vault}/secrets/{name}, with /{version} where one version
	// is meant.
	ID          string            `json:"id"`
	Attributes  Attributes        `json:"attributes"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// RecoveryID is https://{vault}/deletedsecrets/{name}. It and the two
	// times are there for a deleted secret only.
	RecoveryID         string `json:"recoveryId,omitempty"`
	DeletedDate        int64  `json:"deletedDate,omitempty"`
	ScheduledPurgeDate int64  `json:"scheduledPurgeDate,omitempty"`
}

// Attributes are the attributes in an answer.
type Attributes struct {
	Enabled   bool  `json:"enabled"`
	NotBefore int64 `json:"nbf,omitempty"`
	Expires   int64 `json:"exp,omitempty"`
	Created   int64 `json:"created"`
	Updated   int64 `json:"updated"`
	// RecoveryLevel is always "Recoverable+Purgeable", RecoverableDays 90.
	RecoveryLevel   string `json:"recoveryLevel"`
	RecoverableDays int    `json:"recoverableDays"`
}

// ListResult is a page.
type ListResult struct {
	// Value is never null.
	Value []Bundle `json:"value"`
	// NextLink is the whole URL of the next page; null after the last one.
	NextLink *string `json:"nextLink"`
}

// ErrorResult is the body of every refusal.
type ErrorResult struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody says what went wrong.
type ErrorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// InnerError is absent where the code says it all.
	InnerError *InnerError `json:"innererror,omitempty"`
}

// InnerError is the finer code, "ForbiddenByRbac".
type InnerError struct {
	Code string `json:"code"`
}
