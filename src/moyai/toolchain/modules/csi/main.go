// external-provisioner's own controllers behind a main of ours, which leaves out what this driver does not use: storage
// capacity objects, provisioning by node agents and sources in other namespaces. Upstream's main does not compile with the
// client library that the other sidecars and Kubernetes itself have, only because of the first of these; with a client
// library of its own it would take as long to build as all the other sidecars together. Flags are upstream's, by name and
// meaning; one that is not here is refused.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/leaderelection"
	"github.com/kubernetes-csi/csi-lib-utils/metrics"
	"github.com/kubernetes-csi/csi-lib-utils/standardflags"
	provisioning "github.com/kubernetes-csi/external-provisioner/v6/pkg/controller"
	"github.com/kubernetes-csi/external-provisioner/v6/pkg/features"
	snapshots "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	nodelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/workqueue"
	translation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

var version = "unknown"

type options struct {
	prefix          string
	retryStart      time.Duration
	retryMax        time.Duration
	timeout         time.Duration
	sweep           time.Duration
	workers         uint
	cloningWorkers  uint
	uuidLength      int
	fsType          string
	strictTopology  bool
	immediate       bool
	extraMetadata   bool
	publishReadOnly bool
	keepVolumeMode  bool
}

func main() {
	var o options
	flag.StringVar(&o.prefix, "volume-name-prefix", "pvc", "Begins the name of each volume.")
	flag.IntVar(&o.uuidLength, "volume-name-uuid-length", -1, "Digits of the UUID in a volume's name; -1: all.")
	flag.DurationVar(&o.retryStart, "retry-interval-start", time.Second, "The first wait after a failure; doubled with each.")
	flag.DurationVar(&o.retryMax, "retry-interval-max", 5*time.Minute, "The longest wait after a failure.")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Second, "How long a call of the driver may take.")
	flag.DurationVar(&o.sweep, "snapshot-orphan-sweep-interval", 5*time.Minute, "How often snapshots' finalizers are looked through; 0: never.")
	flag.UintVar(&o.workers, "worker-threads", 100, "How many calls of the driver at once.")
	flag.UintVar(&o.cloningWorkers, "cloning-protection-threads", 1, "How many workers take clones' finalizers away.")
	flag.StringVar(&o.fsType, "default-fstype", "", "The file system where a StorageClass names none.")
	flag.BoolVar(&o.strictTopology, "strict-topology", false, "Give the driver the chosen node's topology only.")
	flag.BoolVar(&o.immediate, "immediate-topology", true, "Give the driver all nodes' topologies for claims that are bound at once.")
	flag.BoolVar(&o.extraMetadata, "extra-create-metadata", false, "Tell the driver the names of claim and volume.")
	flag.BoolVar(&o.publishReadOnly, "controller-publish-readonly", false, "Mark volumes that are only read as such when they are attached.")
	flag.BoolVar(&o.keepVolumeMode, "prevent-volume-mode-conversion", true, "Refuse to turn a snapshot's volume mode into the other one.")
	klog.InitFlags(nil)
	standardflags.RegisterCommonFlags(flag.CommandLine)
	flag.Parse()
	defer klog.Flush()
	if standardflags.Configuration.ShowVersion {
		fmt.Println(os.Args[0], version)
		return
	}
	if flag.NArg() > 0 {
		klog.Fatalf("unknown argument %q", flag.Arg(0))
	}
	klog.InfoS("Version", "version", version)
	run(context.Background(), o)
}

func run(ctx context.Context, o options) {
	common := standardflags.Configuration
	config := must(clusterConfig(common.KubeConfig))
	config.QPS, config.Burst = float32(common.KubeAPIQPS), common.KubeAPIBurst
	core := rest.CopyConfig(config)
	core.ContentType = runtime.ContentTypeProtobuf
	kube := must(kubernetes.NewForConfig(core))
	snapshotClient := must(snapshots.NewForConfig(config))

	measured := metrics.NewCSIMetricsManagerWithOptions("", metrics.WithProcessStartTime(false), metrics.WithSubsystem(metrics.SubsystemSidecar))
	driver := must(provisioning.Connect(ctx, common.CSIAddress, measured))
	check(provisioning.Probe(ctx, driver, o.timeout))
	name := must(provisioning.GetDriverName(driver, o.timeout))
	measured.SetDriverName(name)
	klog.InfoS("Driver found", "driver", name)

	mux := http.NewServeMux()
	serve(mux, common, measured)
	work := controllers(ctx, o, kube, snapshotClient, driver, name)
	leaderelection.RunWithLeaderElection(ctx, config, common, work, name, mux, false)
}

// controllers makes all controllers, and returns what runs them once this copy is the one that works.
func controllers(
	ctx context.Context, o options, kube kubernetes.Interface, snapshotClient snapshots.Interface, driver *grpc.ClientConn, name string,
) func(context.Context) {
	plugin, able, err := provisioning.GetDriverCapabilities(driver, o.timeout)
	check(err)
	shared := informers.NewSharedInformerFactory(kube, provisioning.ResyncPeriodOfCsiNodeInformer)
	claims := shared.Core().V1().PersistentVolumeClaims()
	classes := shared.Storage().V1().StorageClasses().Lister()
	var attachments storagelisters.VolumeAttachmentLister
	if able[csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME] {
		attachments = shared.Storage().V1().VolumeAttachments().Lister()
	}
	var nodes nodelisters.NodeLister
	var csiNodes storagelisters.CSINodeLister
	var chosen *provisioning.InMemoryStore
	if provisioning.SupportsTopology(plugin) {
		nodes, csiNodes = shared.Core().V1().Nodes().Lister(), shared.Storage().V1().CSINodes().Lister()
		chosen = provisioning.NewInMemoryStore()
	}
	// claims of the in-tree plug-in that this driver has replaced are its own, too
	translator := translation.New()
	inTree := ""
	if translator.IsMigratedCSIDriverByName(name) {
		inTree = must(translator.GetInTreeNameFromCSIName(name))
	}
	provisioner := provisioning.NewCSIProvisioner(
		kube, o.timeout, fmt.Sprintf("%d-%d-%s", time.Now().UnixMilli(), rand.Intn(10000), name), o.prefix, o.uuidLength, driver,
		snapshotClient, name, plugin, able, inTree, o.strictTopology, o.immediate, translator, classes, csiNodes, nodes,
		claims.Lister(), attachments, nil, o.extraMetadata, o.fsType, nil, o.publishReadOnly, o.keepVolumeMode, chosen,
	)
	limiter := func() workqueue.TypedRateLimiter[string] {
		return workqueue.NewTypedItemExponentialFailureRateLimiter[string](o.retryStart, o.retryMax)
	}
	settings := []func(*controller.ProvisionController) error{
		controller.LeaderElection(false), // it is done here, for all controllers together
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(limiter()),
		controller.Threadiness(int(o.workers)),
		controller.CreateProvisionedPVLimiter(workqueue.DefaultTypedControllerRateLimiter[string]()),
		controller.ClaimsInformer(claims.Informer()),
		controller.RetryIntervalMax(o.retryMax),
		controller.AddFinalizer(true),
	}
	if inTree != "" {
		settings = append(settings, controller.AdditionalProvisionerNames([]string{inTree}))
	}
	volumes := controller.NewProvisionController(ctx, kube, name, inClaimsWords{provisioner.(whole)}, settings...)
	queue := workqueue.NewTypedRateLimitingQueueWithConfig(limiter(), workqueue.TypedRateLimitingQueueConfig[string]{Name: "claims"})
	cloned := provisioning.NewCloningProtectionController(kube, claims.Lister(), claims.Informer(), queue, able)
	var sources *provisioning.SnapshotFinalizerController
	if o.sweep > 0 {
		if there, err := features.IsVolumeSnapshotV1Available(kube.Discovery()); err == nil && there {
			sources = provisioning.NewSnapshotFinalizerController(snapshotClient, claims.Lister(), able, o.sweep)
		}
	}
	return func(ctx context.Context) {
		shared.Start(ctx.Done())
		for kind, synced := range shared.WaitForCacheSync(ctx.Done()) {
			if !synced {
				klog.Fatalf("no list of %v", kind)
			}
		}
		if cloned != nil {
			go cloned.Run(ctx, int(o.cloningWorkers), nil)
		}
		if sources != nil {
			go sources.Run(ctx, nil)
		}
		volumes.Run(ctx)
	}
}

func clusterConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv("KUBECONFIG")
	}
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

// serve answers metrics (and the leader's health, which is added later) where an address for it was given.
func serve(mux *http.ServeMux, common standardflags.SidecarConfiguration, measured metrics.CSIMetricsManager) {
	address := common.HttpEndpoint
	if address == "" {
		address = common.MetricsAddress
	}
	if address == "" {
		return
	}
	gatherers := prometheus.Gatherers{legacyregistry.DefaultGatherer, measured.GetRegistry()}
	mux.Handle(common.MetricsPath, promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{}))
	go func() { check(http.ListenAndServe(address, mux)) }()
}

func check(err error) {
	if err != nil {
		klog.ErrorS(err, "The provisioner ends")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
