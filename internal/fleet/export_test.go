package fleet

import (
	"encoding/json"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/resource"
)

// ReadRule reads the properties of a rule with this ID.
func ReadRule(properties []byte, id resource.ID) (RuleProperties, evidence.Rule, error) {
	return rule(arm.Document{"properties": json.RawMessage(properties)}, id)
}

// ReadKnown reads a host's properties.
func ReadKnown(properties []byte) ([]KnownCertificate, error) {
	return known(arm.Document{"properties": json.RawMessage(properties)})
}

// Told returns what programs may know of a resource's properties.
func Told(properties []byte) any { return told(json.RawMessage(properties), toldProperties) }
