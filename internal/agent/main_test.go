package agent_test

import (
	"os"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
)

func TestMain(m *testing.M) { os.Exit(agenttest.InCgroup(m)) }
