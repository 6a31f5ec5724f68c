package arm_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestEndpointsByVersion: clients of the versions between expect an array of
// clouds, and iterate over it; all others, one cloud.
func TestEndpointsByVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for version, list := range map[string]bool{
		"": false, "1.0": false, "2015-01-01": false, "2018-05-01": true, "2019-05-01": true, "2020-06-01": true, "2022-08-31": true, "2022-09-01": false, "2023-11-01": false,
	} {
		res, err := w.http.Get(w.srv.Names.Management() + "/metadata/endpoints?api-version=" + version)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("version %q: %d %s %v", version, res.StatusCode, text, err)
		}
		type cloud struct {
			Name, ResourceManager string
			Authentication        struct {
				LoginEndpoint string
				Audiences     []string
			}
		}
		clouds := make([]cloud, 1)
		if list {
			err = json.Unmarshal(text, &clouds)
		} else {
			err = json.Unmarshal(text, &clouds[0])
		}
		if err != nil || len(clouds) != 1 {
			t.Errorf("version %q: %v %s, want an array: %v", version, err, text, list)
			continue
		}
		c := clouds[0]
		if c.Name != "Innate" || c.ResourceManager != w.srv.Names.Management() || c.Authentication.LoginEndpoint != w.srv.Names.Login() ||
			!strings.Contains(strings.Join(c.Authentication.Audiences, " "), c.ResourceManager) {
			t.Errorf("version %q: %s", version, text)
		}
	}
}
