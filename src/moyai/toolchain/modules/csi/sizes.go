// Sizes in messages: upstream refuses a claim that is smaller than its source in bytes, and does not say what to ask for.
package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// whole is all that the library finds in upstream's provisioner: a wrapper without one of these would switch it off.
type whole interface {
	controller.BlockProvisioner
	controller.Qualifier
}

// inClaimsWords is a provisioner whose refusals of a size say what the claim has to ask for. All else is upstream's.
type inClaimsWords struct{ whole }

// Upstream's two refusals (a snapshot, a claim as the source): the size asked for, and the source's size, in bytes.
var tooSmall = []*regexp.Regexp{
	regexp.MustCompile(`requested volume size (\d+) is less than the size (\d+) for the source snapshot`),
	regexp.MustCompile(`must be greater than or equal in size to the specified PVC data source, requested (\d+) but source is (\d+)`),
}

func (p inClaimsWords) Provision(
	ctx context.Context, options controller.ProvisionOptions,
) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	volume, state, err := p.whole.Provision(ctx, options)
	return volume, state, withSizeToAskFor(err)
}

// withSizeToAskFor is err itself where it is not about the size of a source.
func withSizeToAskFor(err error) error {
	if err == nil {
		return nil
	}
	for _, pattern := range tooSmall {
		if found := pattern.FindStringSubmatch(err.Error()); found != nil {
			return fmt.Errorf(
				"the claim asks for %s and its source has %s: a claim without a volume cannot be changed, so delete it and create it with "+
					"spec.resources.requests.storage: %s or more (%w)", quantity(found[1]), quantity(found[2]), quantity(found[2]), err,
			)
		}
	}
	return err
}

// quantity is a number of bytes as a claim has it.
func quantity(bytes string) string {
	size, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return bytes
	}
	return resource.NewQuantity(size, resource.BinarySI).String()
}
